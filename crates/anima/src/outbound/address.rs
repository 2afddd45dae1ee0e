//! Which addresses are public.
//!
//! Everything that is not plainly a public unicast address counts as private, so that a range that
//! was forgotten errs on the safe side only if it is listed here. Source: IANA special-purpose
//! address registries, `reliability` 7.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address may be reached without `allow_private_network`.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = a == 0                                  // this network
        || a == 10                                        // private
        || a == 127                                       // loopback
        || (a == 100 && (64..128).contains(&b))           // carrier-grade NAT
        || (a == 169 && b == 254)                         // link-local, cloud metadata
        || (a == 172 && (16..32).contains(&b))            // private
        || (a == 192 && b == 88 && c == 99)               // 6to4 relays, deprecated
        || (a == 192 && b == 168)                         // private
        || (a == 192 && b == 0 && (c == 0 || c == 2))     // protocol assignments, documentation
        || (a == 198 && (18..20).contains(&b))            // benchmarking
        || (a == 198 && b == 51 && c == 100)              // documentation
        || (a == 203 && b == 0 && c == 113)               // documentation
        || a >= 224; // multicast, reserved, broadcast
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(v4) = embedded_v4(address) {
        return is_public_v4(v4);
    }
    let [first, second, third, ..] = address.segments();
    let special = (first == 0x2001 && second == 0)               // Teredo
        || (first == 0x2001 && second == 2 && third == 0)        // benchmarking
        || (first == 0x2001 && (0x10..0x30).contains(&second))   // ORCHID, ORCHIDv2
        || (first == 0x2001 && second == 0xdb8)                  // documentation
        || (first == 0x3fff && second < 0x1000); // documentation
    // Only global unicast, 2000::/3, is public: loopback, link-local, unique local and multicast
    // all lie outside it.
    (first & 0xe000) == 0x2000 && !special
}

/// The IPv4 address inside a mapped, compatible, NAT64 or 6to4 address.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        // Of NAT64 the well-known prefix alone: in a local one, 64:ff9b:1::/48, the operator of the
        // network says where the address stands, so that nothing there counts as public.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(join(high, low))
        }
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_recognised_in_every_disguise() {
        for text in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "64:ff9b:1::808:808",
            "fe80::1",
            "fc00::1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "::127.0.0.1",
            "ff02::1",
            "192.88.99.1",
            "::ffff:192.88.99.1",
            "3fff::1",
            "3fff:fff:ffff::1",
            "2001:db8::1",
            "2001:0:1::1",
            "2001:2::1",
            "2001:2:0:ffff::1",
            "2001:10::1",
            "2001:1f:ffff::1",
            "2001:20::1",
            "2001:2f:ffff::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "1.1.1.1",
            "172.32.0.1",
            "192.88.98.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "2001:30::1",
            "2001:4860:4860::8888",
            "3fff:1000::1",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }
}
