//! Whether a channel's base URL is one that may be called at all.
//!
//! Judges the text alone, so that an admin learns at once; names are resolved and judged again when
//! a connection is made, which is the real guard. Source: `reliability` 7.2 (userinfo tricks,
//! octal, hex and dword hosts, mapped addresses, metadata names).

use std::net::{Ipv4Addr, Ipv6Addr};

use http::Uri;

use crate::admin::problem::Problem;
use crate::outbound::is_public;

/// Judges a base URL.
///
/// # Errors
/// What is wrong with `base_url`.
pub(super) fn check(base_url: &str, allow_private: bool) -> Result<(), Problem> {
    let refuse = |expected: &str| Err(Problem::invalid("base_url", expected));
    // `http::Uri` drops a fragment without a word, so look at the text.
    if base_url.contains(['#', '?', '\\', '%']) || base_url.chars().any(char::is_whitespace) {
        return refuse("a URL without query, fragment or escapes");
    }
    let Ok(uri) = base_url.parse::<Uri>() else {
        return refuse("an absolute http or https URL");
    };
    let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return refuse("an absolute http or https URL");
    };
    if authority.as_str().contains('@') {
        return refuse("a URL without user and password: secrets belong into `credentials`");
    }
    if !port_is_sound(authority) {
        return refuse("a port from 1 to 65535");
    }
    if uri.path().split('/').any(|part| part == "." || part == "..") {
        return refuse("a path without `.` and `..`");
    }
    match reach(authority.host()) {
        Reach::Odd => refuse("a host name, or an address in its usual form"),
        Reach::Private if !allow_private => {
            refuse("a public address; set `allow_private_network` for loopback and private ones")
        }
        Reach::Private | Reach::Public => Ok(()),
    }
}

fn port_is_sound(authority: &http::uri::Authority) -> bool {
    let rest = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    rest.is_empty() || authority.port_u16().is_some_and(|port| port > 0)
}

/// Where a host leads, as far as its text tells.
#[derive(Debug, PartialEq, Eq)]
enum Reach {
    Public,
    Private,
    /// Not a name and not an address as they are usually written: resolvers disagree about it.
    Odd,
}

/// Names that lead to this machine, its container host or a cloud's metadata service.
const PRIVATE_NAMES: &[&str] =
    &["localhost", "local", "internal", "localdomain", "home.arpa", "metadata", "instance-data"];

fn reach(host: &str) -> Reach {
    if let Some(inner) = host.strip_prefix('[') {
        let address = inner.trim_end_matches(']').parse::<Ipv6Addr>();
        return address.map_or(Reach::Odd, |ip| reach_of(is_public(ip.into())));
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return reach_of(is_public(address.into()));
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    let number = last.strip_prefix("0x").unwrap_or(last);
    let hex = last.starts_with("0x") && number.bytes().all(|b| b.is_ascii_hexdigit());
    // A name whose last part is a number is an IPv4 address in disguise (WHATWG URL, 3.5).
    if name.is_empty() || hex || last.bytes().all(|b| b.is_ascii_digit()) {
        return Reach::Odd;
    }
    let under = |suffix: &&str| {
        name.strip_suffix(*suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    reach_of(!PRIVATE_NAMES.iter().any(under))
}

const fn reach_of(public: bool) -> Reach {
    if public { Reach::Public } else { Reach::Private }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_urls_pass() {
        for url in [
            "https://api.openai.com/v1",
            "http://8.8.8.8",
            "https://eu.example.co:8443/deep/path/",
            "https://[2606:4700::1111]/v1",
            "https://internal.example.com",
        ] {
            assert_eq!(check(url, false), Ok(()), "{url}");
        }
    }

    #[test]
    fn private_urls_need_the_permission() {
        for url in [
            "http://127.0.0.1:8080/v1",
            "http://localhost",
            "http://LOCALHOST.:1",
            "http://a.localhost",
            "http://10.0.0.1",
            "http://172.16.3.4",
            "http://192.168.0.1",
            "http://169.254.169.254/latest",
            "http://100.64.0.1",
            "http://0.0.0.0",
            "http://255.255.255.255",
            "http://metadata.google.internal",
            "http://metadata",
            "http://host.docker.internal",
            "http://[::1]",
            "http://[::]",
            "http://[fd00::1]",
            "http://[fe80::1]",
            "http://[::ffff:169.254.169.254]",
            "http://[64:ff9b::a00:1]",
            "http://[2002:7f00:1::]",
        ] {
            let refused = check(url, false).err().unwrap();
            assert_eq!(refused.member.as_deref(), Some("base_url"), "{url}");
            assert!(refused.detail.contains("allow_private_network"), "{url}: {}", refused.detail);
            assert_eq!(check(url, true), Ok(()), "{url}");
        }
    }

    #[test]
    fn odd_urls_are_refused_whatever_is_permitted() {
        for url in [
            "",
            "api.openai.com/v1",
            "ftp://a.example",
            "https://",
            "https:///v1",
            "https://user:pass@a.example",
            "https://a.example@127.0.0.1",
            "https://a.example/v1?key=1",
            "https://a.example/v1#x",
            "https://a.example:0",
            "https://a.example:99999",
            "https://a.example:",
            "https://a.example/../admin",
            "http://2130706433",
            "http://0x7f000001",
            "http://0177.0.0.1",
            "http://127.1",
            "http://0x7f.1",
            "http://a.0x7f",
            "https://a%2eexample",
            "https://a b",
            "https://a\\b",
        ] {
            assert!(check(url, true).is_err(), "{url}");
        }
    }
}
