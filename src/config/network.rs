//! Address ranges, for `mgmt_allow`: `10.0.0.0/8`, `fd00::/8`, or a single address.
//!
//! A listener on `::` sees an IPv4 client as `::ffff:a.b.c.d`, so such an address counts as the
//! IPv4 address it is, in the range as well as in the client.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address range in `mgmt_allow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Any address in the range.
    pub address: IpAddr,
    /// How many leading bits count.
    pub prefix: u8,
}

impl Network {
    /// Whether `address` lies in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(mine), IpAddr::V4(other)) => {
                let drop = 32 - u32::from(self.prefix.min(32));
                let differ = u32::from(mine) ^ u32::from(other);
                differ.checked_shr(drop).unwrap_or(0) == 0
            }
            (IpAddr::V6(mine), IpAddr::V6(other)) => {
                let drop = 128 - u32::from(self.prefix.min(128));
                let differ = u128::from(mine) ^ u128::from(other);
                differ.checked_shr(drop).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// The text is not an address or a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotANetwork;

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Network, NotANetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u8 = match prefix {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| NotANetwork)?
            }
            Some(_) => return Err(NotANetwork),
            None => bits,
        };
        if prefix > bits {
            return Err(NotANetwork);
        }
        let canonical = address.to_canonical();
        if address.is_ipv6() && canonical.is_ipv4() && prefix >= 96 {
            return Ok(Network {
                address: canonical,
                prefix: prefix - 96,
            });
        }
        Ok(Network { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn contains() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.1.2.3/8", "10.9.9.9", true),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("192.168.4.0/22", "192.168.7.255", true),
            ("192.168.4.0/22", "192.168.8.0", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "10.0.0.1", false),
            ("::1", "::1", true),
            ("::1", "::2", false),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fc00::1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("10.0.0.0/8", "::ffff:11.1.1.1", false),
            ("::ffff:10.0.0.0/104", "10.1.1.1", true),
            ("::ffff:10.0.0.0/104", "11.1.1.1", false),
        ] {
            let range: Network = network.parse().unwrap();
            let contained = range.contains(address.parse().unwrap());
            assert_eq!(contained, expected, "{network} {address}");
        }
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "localhost",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0/8",
            "10.0.0.0/8/8",
            "10.0.0.0/-1",
            " 10.0.0.1",
        ] {
            assert_eq!(text.parse::<Network>(), Err(NotANetwork), "{text:?}");
        }
    }
}
