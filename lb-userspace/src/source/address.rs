//! Addresses and ranges as people write them (F7).
//!
//! Kubernetes objects may hold IPv4 addresses with leading zeros in their octets: they are decimal, whatever a C library
//! would make of them. IPv4-mapped IPv6 addresses are the IPv4 addresses they stand for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What was written, and whether it was written in a way that other programs read differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed<T> {
    /// The canonical value.
    pub value: T,
    /// True: an octet or a prefix length has leading zeros, or a range has blanks around it or bits beyond its prefix.
    pub odd: bool,
}

/// Not an address or range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not an IP address.
    #[error("{0:?} is not an IP address")]
    Address(String),
    /// Not a range.
    #[error("{0:?} is not a CIDR range such as 10.0.0.0/8 or fd00::/8")]
    Range(String),
}

/// Reads an address.
///
/// # Errors
/// When it is neither an IPv4 nor an IPv6 address.
pub fn parse_ip(text: &str) -> Result<Parsed<IpAddr>, AddressError> {
    if text.contains(':') {
        let address: Ipv6Addr = text.parse().map_err(|_| AddressError::Address(text.to_owned()))?;
        return Ok(Parsed { value: IpAddr::V6(address).to_canonical(), odd: false });
    }
    parse_ipv4(text)
        .map(|Parsed { value, odd }| Parsed { value: IpAddr::V4(value), odd })
        .ok_or_else(|| AddressError::Address(text.to_owned()))
}

fn parse_ipv4(text: &str) -> Option<Parsed<Ipv4Addr>> {
    let mut octets = [0_u8; 4];
    let mut odd = false;
    let mut parts = text.split('.');
    for octet in &mut octets {
        let (value, leading_zeros) = parse_decimal(parts.next()?)?;
        *octet = u8::try_from(value).ok()?;
        odd |= leading_zeros;
    }
    parts.next().is_none().then_some(Parsed { value: Ipv4Addr::from(octets), odd })
}

/// A number of decimal digits, and whether it has leading zeros.
fn parse_decimal(text: &str) -> Option<(u32, bool)> {
    let digits = !text.is_empty() && text.len() <= 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    let value = digits.then(|| text.parse().ok()).flatten()?;
    Some((value, text.len() > 1 && text.starts_with('0')))
}

/// Reads a range; blanks around it are tolerated (V7), bits beyond the prefix are cleared.
///
/// # Errors
/// When it is not a range.
pub fn parse_cidr(text: &str) -> Result<Parsed<IpNet>, AddressError> {
    let error = || AddressError::Range(text.to_owned());
    let trimmed = text.trim();
    let (address, length) = trimmed.split_once('/').ok_or_else(error)?;
    let mapped = address.contains(':');
    let address = parse_ip(address).map_err(|_| error())?;
    let (length, leading_zeros) = parse_decimal(length).ok_or_else(error)?;
    let length = u8::try_from(length).map_err(|_| error())?;
    let net = match address.value {
        IpAddr::V4(address) if mapped => {
            length.checked_sub(96).and_then(|length| Ipv4Net::new(address, length).ok()).map(IpNet::V4)
        }
        IpAddr::V4(address) => Ipv4Net::new(address, length).ok().map(IpNet::V4),
        IpAddr::V6(address) => Ipv6Net::new(address, length).ok().map(IpNet::V6),
    }
    .ok_or_else(error)?;
    let value = net.trunc();
    Ok(Parsed { value, odd: address.odd || leading_zeros || trimmed != text || value != net })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn ip(text: &str, expected: &str, odd: bool) {
        assert_eq!(parse_ip(text), Ok(Parsed { value: expected.parse().unwrap(), odd }));
    }

    #[test]
    fn f7_octets_with_leading_zeros_are_decimal() {
        ip("172.30.0.041", "172.30.0.41", true);
        ip("010.020.030.040", "10.20.30.40", true);
        ip("0.0.0.0", "0.0.0.0", false);
        ip("10.0.0.1", "10.0.0.1", false);
    }

    #[test]
    fn f7_ipv6_is_canonical() {
        ip("2001:db8:85a3:0:0:8a2e:370:7334", "2001:db8:85a3::8a2e:370:7334", false);
        ip("::ffff:10.0.0.1", "10.0.0.1", false);
    }

    #[test]
    fn refuses_what_is_no_address() {
        for text in [
            "",
            "10.0.0",
            "10.0.0.256",
            "10.0.0.1.2",
            "10.0.0.1 ",
            "10.0.0.0x1",
            "+1.2.3.4",
            "fe80::1%eth0",
            "host",
        ] {
            assert_eq!(parse_ip(text), Err(AddressError::Address(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn v7_ranges() {
        let net = |text: &str| parse_cidr(text).map(|parsed| (parsed.value.to_string(), parsed.odd));
        assert_eq!(net("10.1.2.0/28"), Ok(("10.1.2.0/28".to_owned(), false)));
        assert_eq!(net(" 10.1.2.0/28\t"), Ok(("10.1.2.0/28".to_owned(), true)));
        assert_eq!(net("203.0.113.000/025"), Ok(("203.0.113.0/25".to_owned(), true)));
        assert_eq!(net("10.1.2.3/8"), Ok(("10.0.0.0/8".to_owned(), true)));
        assert_eq!(net("2001:db8::/32"), Ok(("2001:db8::/32".to_owned(), false)));
        assert_eq!(net("::ffff:10.0.0.0/104"), Ok(("10.0.0.0/8".to_owned(), false)));
        for text in
            ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "fd00::/129", "x/8", "::ffff:10.0.0.0/8"]
        {
            assert!(parse_cidr(text).is_err(), "{text}");
        }
    }
}
