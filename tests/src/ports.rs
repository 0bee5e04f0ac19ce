//! Loopback ports for children that must keep theirs over a restart.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which Linux takes the ports of outgoing connections (32768 and up,
/// `net.ipv4.ip_local_port_range`): a port in there could be taken while its owner restarts.
const FIRST: u16 = 18_000;
const COUNT: u16 = 14_000;

/// A loopback address that nobody listened on a moment ago.
///
/// # Panics
/// Where the whole range is taken.
pub fn free() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test binaries run one after the other or side by side: each starts at a place of its own.
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start.wrapping_mul(37).wrapping_add(step)) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_askers_get_two_ports() {
        let first = free();
        let second = free();
        assert_ne!(first, second);
        assert!(TcpListener::bind(first).is_ok(), "{first} is not free");
    }
}
