//! IP addresses and networks in objects.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{At, Errors};

/// An address that something other than the machine itself can have.
pub(super) fn endpoint(at: &At<'_>, errors: &mut Errors) {
    let Ok(ip) = at.text().parse::<IpAddr>() else {
        errors.push(at.invalid("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"));
        return;
    };
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if ip.is_unspecified() {
        errors.push(at.invalid("may not be unspecified (0.0.0.0 or ::)"));
    }
    if ip.is_loopback() {
        errors.push(at.invalid("may not be in the loopback range (127.0.0.0/8, ::1/128)"));
    }
    if link_local {
        errors.push(at.invalid("may not be in the link-local range (169.254.0.0/16, fe80::/10)"));
    }
    if is_link_local_multicast(ip) {
        errors.push(at.invalid("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"));
    }
}

fn is_link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    }
}

/// The network here; what is none is an error.
pub(super) fn network(at: &At<'_>, errors: &mut Errors) -> Option<IpNet> {
    let parsed = at.text().parse().ok();
    if parsed.is_none() {
        errors.push(at.invalid("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"));
    }
    parsed
}
