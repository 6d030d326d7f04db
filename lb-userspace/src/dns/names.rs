//! Domain names of things: put together from labels, and addresses in reverse.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A name below `base`, the leftmost label first. None when a label is empty or too long, or the whole is (RFC 1035,
/// section 2.3.4: 63 and 255 bytes).
pub(super) fn below(labels: &[&str], base: &Name) -> Option<Name> {
    labels.iter().rev().try_fold(base.clone(), |name, label| name.prepend_label(label.as_bytes()).ok())
}

/// The domain of `--cluster-domain`.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse_domain(text: &str) -> Result<Name, String> {
    let trimmed = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if !trimmed.split('.').all(label) {
        return Err("a domain such as cluster.local is wanted: letters, digits, `-` and `.`".to_owned());
    }
    absolute(trimmed).ok_or_else(|| "the domain is too long".to_owned())
}

/// A name from text, with or without a dot at its end.
pub(super) fn absolute(text: &str) -> Option<Name> {
    let labels: Vec<_> = text.strip_suffix('.').unwrap_or(text).split('.').collect();
    below(&labels, &Name::root())
}

/// An address as one label, for endpoints and pods without a hostname: `10-1-0-5`, `fd00--5`.
pub(super) fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The name that PTR records of a network or address have (RFC 1035, section 3.5; RFC 3596, section 2.5). Prefixes that end
/// inside an octet (IPv6: a nibble) are cut there.
pub(super) fn reverse(net: IpNet) -> Name {
    let (labels, base): (Vec<String>, _) = match net {
        IpNet::V4(net) => {
            let octets = net.network().octets().into_iter().take(usize::from(net.prefix_len() / 8));
            (octets.map(|octet| octet.to_string()).collect(), ["in-addr", "arpa"])
        }
        IpNet::V6(net) => {
            let octets = net.network().octets().into_iter();
            let nibbles = octets.flat_map(|octet| [octet >> 4, octet & 15]);
            let nibbles = nibbles.take(usize::from(net.prefix_len() / 4));
            (nibbles.map(|nibble| format!("{nibble:x}")).collect(), ["ip6", "arpa"])
        }
    };
    let labels = labels.iter().rev().map(String::as_str).chain(base);
    // At most 34 short labels: never too long.
    Name::from_labels(labels.map(str::as_bytes)).unwrap_or_default()
}

/// The network that a name below `in-addr.arpa` or `ip6.arpa` stands for; an address is one of full length.
pub(super) fn parse_reverse(name: &Name) -> Option<IpNet> {
    let mut labels = name.iter().rev();
    if !labels.next()?.eq_ignore_ascii_case(b"arpa") {
        return None;
    }
    let kind = labels.next()?;
    if kind.eq_ignore_ascii_case(b"in-addr") {
        let mut octets = [0; 4];
        let mut count = 0;
        for label in labels {
            *octets.get_mut(usize::from(count))? = decimal(label)?;
            count += 1;
        }
        Ipv4Net::new(Ipv4Addr::from(octets), count * 8).ok().map(IpNet::V4)
    } else if kind.eq_ignore_ascii_case(b"ip6") {
        let mut bits = 0_u128;
        let mut count = 0_u8;
        for label in labels {
            let [digit] = label else { return None };
            let nibble = char::from(*digit).to_digit(16)?;
            if count == 32 {
                return None;
            }
            count += 1;
            bits |= u128::from(nibble) << (128 - 4 * u32::from(count));
        }
        Ipv6Net::new(Ipv6Addr::from(bits), count * 4).ok().map(IpNet::V6)
    } else {
        None
    }
}

/// An octet as reverse names have it: without leading zeros.
fn decimal(label: &[u8]) -> Option<u8> {
    let plain = label.iter().all(u8::is_ascii_digit) && (label.len() == 1 || label.first() != Some(&b'0'));
    std::str::from_utf8(label).ok().filter(|_| plain)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_names_go_there_and_back() {
        for (net, name) in [
            ("10.96.0.10/32", "10.0.96.10.in-addr.arpa."),
            ("10.96.0.0/16", "96.10.in-addr.arpa."),
            ("10.96.0.0/12", "10.in-addr.arpa."),
            ("fd00:96::/32", "6.9.0.0.0.0.d.f.ip6.arpa."),
        ] {
            let net: IpNet = net.parse().unwrap();
            assert_eq!(reverse(net).to_string(), name);
            let parsed = parse_reverse(&absolute(&name.to_ascii_uppercase()).unwrap()).unwrap();
            assert!(parsed.contains(&net) && net.prefix_len() - parsed.prefix_len() < 8, "{parsed}");
        }
        let address: IpNet = "fd00:96::10/128".parse().unwrap();
        assert_eq!(parse_reverse(&reverse(address)), Some(address));
    }

    #[test]
    fn what_is_no_reverse_name() {
        let long = format!("{}ip6.arpa", "0.".repeat(33));
        for name in [
            "arpa",
            "in-addr.arpb",
            "256.10.in-addr.arpa",
            "010.10.in-addr.arpa",
            "+1.10.in-addr.arpa",
            "1.2.3.4.5.in-addr.arpa",
            "10.ip6.arpa",
            "g.ip6.arpa",
            &long,
        ] {
            assert_eq!(parse_reverse(&absolute(name).unwrap()), None, "{name}");
        }
    }

    #[test]
    fn domains() {
        assert_eq!(parse_domain("cluster.local").unwrap(), parse_domain("cluster.local.").unwrap());
        for bad in ["", ".", "a..b", "a b", &"a.".repeat(200), &"a".repeat(64)] {
            assert!(parse_domain(bad).is_err(), "{bad:?}");
        }
    }
}
