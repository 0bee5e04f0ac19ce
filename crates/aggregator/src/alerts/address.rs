//! Which addresses belong to the internet, and which to this machine or network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether the address is one that the internet routes to a single place. All others may be this
/// machine, its network, or a cloud's metadata: the special-purpose registries of IANA
/// (<https://www.iana.org/assignments/iana-ipv4-special-registry/>,
/// <https://www.iana.org/assignments/iana-ipv6-special-registry/>), read 2026-11.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Blocks of IPv4 that are no place in the internet, with the length of their prefix. Beside those of
/// the registry: where Azure's machines reach their host
/// (<https://learn.microsoft.com/en-us/azure/virtual-network/what-is-ip-address-168-63-129-16>).
const SPECIAL_V4: [([u8; 4], u32); 16] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    // Shared by carriers; some clouds keep their metadata in it.
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([168, 63, 129, 16], 32),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];

fn is_public_v4(address: Ipv4Addr) -> bool {
    !SPECIAL_V4.iter().any(|(block, length)| {
        let mask = u32::MAX << (32 - length);
        address.to_bits() & mask == Ipv4Addr::from(*block).to_bits()
    })
}

/// Blocks within the one that IPv6's internet is in which are no place in it.
const SPECIAL_V6: [(u128, u32); 3] = [
    // Protocol assignments, Teredo and ORCHID among them.
    (0x2001_0000 << 96, 23),
    (0x2001_0db8 << 96, 32),
    (0x3fff_0000 << 96, 20),
];

fn is_public_v6(address: Ipv6Addr) -> bool {
    let bits = address.to_bits();
    let is_in = |block: u128, length: u32| bits >> (128 - length) == block >> (128 - length);
    // Addresses that wrap one of IPv4: mapped, translated (RFC 6052), 6to4.
    let wrapped = match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(bits as u32),
        [0x2002, ..] => Some((bits >> 80) as u32),
        _ => None,
    };
    if let Some(wrapped) = wrapped {
        return is_public_v4(Ipv4Addr::from_bits(wrapped));
    }
    is_in(0x2000_0000 << 96, 3)
        && !SPECIAL_V6
            .iter()
            .any(|&(block, length)| is_in(block, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, public) in [
            ("1.1.1.1", true),
            ("9.255.255.255", true),
            ("11.0.0.0", true),
            ("100.63.255.255", true),
            ("100.128.0.0", true),
            ("172.15.255.255", true),
            ("172.32.0.0", true),
            ("192.167.1.1", true),
            ("223.255.255.255", true),
            ("0.0.0.0", false),
            ("10.255.0.1", false),
            ("100.100.100.200", false),
            ("127.0.0.1", false),
            ("127.8.8.8", false),
            ("169.254.169.254", false),
            ("168.63.129.16", false),
            ("172.16.0.1", false),
            ("172.31.255.255", false),
            ("192.0.0.192", false),
            ("192.168.1.1", false),
            ("198.19.0.1", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("2606:4700:4700::1111", true),
            ("2a00:1450::1", true),
            ("64:ff9b::1.1.1.1", true),
            ("::", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:10.0.0.1", false),
            ("::127.0.0.1", false),
            ("64:ff9b::a9fe:a9fe", false),
            ("64:ff9b:1::1", false),
            ("2002:7f00:1::", false),
            ("2002:a00:1::1", false),
            ("2001:0:53aa:64c:0:0:f5ff:fffe", false),
            ("2001:db8::1", false),
            ("3fff::1", false),
            ("5f00::1", false),
            ("fc00::1", false),
            ("fd00:ec2::254", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
            ("100::1", false),
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(is_public(address), public, "{text}");
        }
    }
}
