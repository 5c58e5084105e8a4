//! Which addresses belong to the internet at large, and which lead into this machine or its networks.
//!
//! After the special-purpose registries of IANA. For IPv6 the rule is reversed: only what is allocated for the internet
//! is public, and an address that contains an IPv4 address is judged by that one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 networks that are not part of the internet, with the length of their prefix.
const V4: [(Ipv4Addr, u32, &str); 16] = [
    (Ipv4Addr::UNSPECIFIED, 8, "an unspecified"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "a private"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "a private"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "a loopback"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "a link-local"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "a private"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "a reserved"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "a reserved"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "a reserved"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "a private"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "a reserved"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "a reserved"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "a reserved"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "a multicast"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "a reserved"),
    // The metadata service of some clouds, in a block that is public otherwise.
    (Ipv4Addr::new(168, 63, 129, 16), 32, "a reserved"),
];

/// The kind of an address that is not part of the internet: `a loopback`, `a private`, ...
pub(super) fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => v6(address),
    }
}

fn v4(address: Ipv4Addr) -> Option<&'static str> {
    V4.iter().find_map(|&(network, prefix, kind)| {
        let differing = address.to_bits() ^ network.to_bits();
        (differing.leading_zeros() >= prefix).then_some(kind)
    })
}

fn v6(address: Ipv6Addr) -> Option<&'static str> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let embedded = |high: u16, low: u16| v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match (a, b) {
        _ if address.is_unspecified() => Some("an unspecified"),
        _ if address.is_loopback() => Some("a loopback"),
        // Mapped, and translated by NAT64.
        (0, 0) if [c, d, e, f] == [0, 0, 0, 0xffff] => embedded(g, h),
        (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => embedded(g, h),
        // 6to4.
        (0x2002, _) => embedded(b, c),
        // Teredo and other protocols, documentation.
        (0x2001, 0..0x200 | 0xdb8) | (0x3fff, 0..0x1000) => Some("a reserved"),
        (0x2000..0x4000, _) => None,
        (0xfc00..0xfe00, _) => Some("a private"),
        (0xfe80..0xfec0, _) => Some("a link-local"),
        (0xff00.., _) => Some("a multicast"),
        _ => Some("a reserved"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_not_public() {
        for (addresses, kind) in [
            ("127.0.0.1 127.255.255.255 ::1 ::ffff:127.0.0.1 64:ff9b::7f00:1 2002:7f00:1::", "a loopback"),
            ("10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 100.127.255.255 fc00::1 fdff::1", "a private"),
            ("::ffff:10.0.0.1 64:ff9b::c0a8:1 2002:a00:1::1", "a private"),
            (
                "169.254.169.254 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe:: fe80::1 febf::1",
                "a link-local",
            ),
            ("0.0.0.0 0.1.2.3 :: ::ffff:0.0.0.0", "an unspecified"),
            ("224.0.0.1 239.255.255.255 ff02::1", "a multicast"),
            (
                "192.0.0.1 192.0.2.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 240.0.0.1 255.255.255.255",
                "a reserved",
            ),
            (
                "168.63.129.16 192.88.99.1 ::127.0.0.1 64:ff9b:1::1 100::1 2001::1 2001:2::1 2001:db8::1 3fff::1",
                "a reserved",
            ),
            ("fec0::1", "a reserved"),
        ] {
            for address in addresses.split(' ') {
                assert_eq!(not_public(address.parse().unwrap()), Some(kind), "{address}");
            }
        }
    }

    #[test]
    fn the_internet_is_public() {
        let public = "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 \
            169.253.255.255 172.15.255.255 172.32.0.0 192.167.255.255 198.17.255.255 198.20.0.0 223.255.255.255 \
            2606:4700::1111 2001:200::1 2001:4860:4860::8888 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::1";
        for address in public.split_whitespace() {
            assert_eq!(not_public(address.parse().unwrap()), None, "{address}");
        }
    }
}
