//! `pods/exec`, `pods/attach` and `pods/portforward`: finds the pod, has its node begin, and switches protocols.

use axum::response::Response;
use http::request::Parts;
use tokio::io::split;

use super::target::{Target, failure};
use crate::link::{Session, Stdio};
use crate::query::Query;
use crate::server::Call;
use crate::status::{Failure, Result};
use crate::streams::{Offer, PORT_FORWARD, REMOTE_COMMAND, Switched, forward, remote, tunnel};

/// Ports of one WebSocket.
const PORTS_MAX: usize = 64;

/// `pods/exec` and `pods/attach`. The program runs before the answer, so that a refusal of the node is an ordinary one.
pub async fn remote(call: &Call, parts: Parts) -> Result<Response> {
    let stdio = stdio(&call.query)?;
    let command: Vec<String> = call.query.all("command").map(str::to_owned).collect();
    let exec = call.resource.subresource == "exec";
    if exec && command.is_empty() {
        return Err(Failure::bad_request("you must specify at least one command for the container"));
    }
    let offer = Offer::read(call, parts, &REMOTE_COMMAND).await?;
    let target = Target::of(call).await?.not_ended()?;
    let container = target.container(call.query.get("container"))?;
    let session = if exec { Session::Exec { container, command, stdio } } else { Session::Attach { container, stdio } };
    let opened = call.server.config.streams.open(&call.user, target.pod, session).await;
    let link = opened.map_err(|error| failure(call, error))?;
    Ok(offer.switch(move |switched| async move {
        match switched {
            Switched::WebSocket(socket) => remote::over_websocket(socket, link).await,
            Switched::Tunnel(socket) => {
                let (reader, writer) = tunnel(socket);
                remote::over_spdy(reader, writer, stdio, link).await;
            }
            Switched::Spdy(io) => {
                let (reader, writer) = split(io);
                remote::over_spdy(reader, writer, stdio, link).await;
            }
        }
    }))
}

fn stdio(query: &Query) -> Result<Stdio> {
    let tty = query.flag("tty");
    let stdio =
        Stdio { stdin: query.flag("stdin"), stdout: query.flag("stdout"), stderr: query.flag("stderr") && !tty, tty };
    if !(stdio.stdin || stdio.stdout || stdio.stderr) {
        return Err(Failure::bad_request("you must specify at least one of stdin, stdout, stderr"));
    }
    Ok(stdio)
}

/// `pods/portforward`.
pub async fn forward(call: &Call, parts: Parts) -> Result<Response> {
    let offer = Offer::read(call, parts, &PORT_FORWARD).await?;
    let ports = ports(&call.query)?;
    let target = Target::of(call).await?.not_ended()?;
    let pod = forward::Pod { streams: call.server.config.streams.clone(), user: call.user.clone(), pod: target.pod };
    if offer.names_ports() && ports.is_empty() {
        return Err(Failure::bad_request("at least one port must be named by the parameter `ports`"));
    }
    Ok(offer.switch(move |switched| async move {
        match switched {
            Switched::WebSocket(socket) => forward::over_websocket(socket, ports, pod).await,
            Switched::Tunnel(socket) => {
                let (reader, writer) = tunnel(socket);
                forward::over_spdy(reader, writer, pod).await;
            }
            Switched::Spdy(io) => {
                let (reader, writer) = split(io);
                forward::over_spdy(reader, writer, pod).await;
            }
        }
    }))
}

/// `ports=80&ports=81`, or `ports=80,81`.
fn ports(query: &Query) -> Result<Vec<u16>> {
    let named = query.all("ports").flat_map(|value| value.split(',')).filter(|port| !port.is_empty());
    let ports: Option<Vec<u16>> = named.map(|port| port.parse().ok().filter(|port| *port != 0)).collect();
    match ports {
        Some(ports) if ports.len() <= PORTS_MAX => Ok(ports),
        Some(ports) => Err(Failure::bad_request(format!("{} ports; at most {PORTS_MAX} are taken", ports.len()))),
        None => Err(Failure::bad_request(format!("{:?} are no ports", query.all("ports").collect::<Vec<_>>()))),
    }
}
