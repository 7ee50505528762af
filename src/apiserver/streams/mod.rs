//! Streams into pods as clients speak them: a connection that was HTTP until its request was answered with 101.
//!
//! ```text
//!              WebSocket v5/v4.channel.k8s.io ─▶ remote::over_websocket ─┐
//! exec, attach ┤                                                        ├─▶ one Link
//!              SPDY/3.1 v4.channel.k8s.io ─────▶ remote::over_spdy ──────┘
//!              WebSocket v4.channel.k8s.io ────▶ forward::over_websocket ┐
//! portforward ─┤ SPDY/3.1 inside a WebSocket ──▶ forward::over_spdy ─────┼─▶ a Link for each connection
//!              SPDY/3.1 ───────────────────────▶ forward::over_spdy ─────┘
//! ```
//!
//! Not here: which pod, and whether the user may (`verbs`).
//!
//! **Invariant:** whichever side ends first ends the other, and nothing is kept for either but bounded queues.

pub mod forward;
mod io;
pub mod remote;
mod upgrade;
mod websocket;

pub use io::{over_link, tunnel};
pub use upgrade::{Connection, Offer, PORT_FORWARD, REMOTE_COMMAND, Switched};
