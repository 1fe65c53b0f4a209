//! Address ranges as intervals: a CIDR without its exceptions.
//!
//! Invariant: an interval contains addresses of one family only.

use std::net::IpAddr;

use ipnet::IpNet;

/// Addresses of one family from the first to the last, both included, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) is_v6: bool,
    pub(super) first: u128,
    pub(super) last: u128,
}

/// An address as its family and number.
pub(super) fn number(address: IpAddr) -> (bool, u128) {
    match address {
        IpAddr::V4(v4) => (false, u128::from(u32::from(v4))),
        IpAddr::V6(v6) => (true, u128::from(v6)),
    }
}

fn interval(net: &IpNet) -> Interval {
    let (is_v6, first) = number(net.network());
    let (_, last) = number(net.broadcast());
    Interval { is_v6, first, last }
}

/// The addresses of a CIDR without its exceptions, in order.
pub(super) fn remaining(net: &IpNet, except: &[IpNet]) -> Vec<Interval> {
    let whole = interval(net);
    let mut holes: Vec<Interval> = except.iter().map(interval).collect();
    holes.sort_by_key(|hole| hole.first);
    let mut left = Vec::new();
    let mut next = Some(whole.first);
    for hole in holes {
        let Some(first) = next else { break };
        if hole.is_v6 != whole.is_v6 || hole.last < first {
            continue;
        }
        if hole.first > first {
            let last = hole.first - 1;
            left.push(Interval {
                first,
                last,
                ..whole
            });
        }
        next = hole.last.checked_add(1);
    }
    if let Some(first) = next.filter(|first| *first <= whole.last) {
        left.push(Interval { first, ..whole });
    }
    left
}

/// True if the address is in the CIDR and in none of its exceptions.
pub(super) fn holds(net: &IpNet, except: &[IpNet], address: IpAddr) -> bool {
    net.contains(&address) && !except.iter().any(|hole| hole.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(net: &str, except: &[&str]) -> Vec<(u128, u128)> {
        let except: Vec<IpNet> = except.iter().map(|net| net.parse().unwrap()).collect();
        let left = remaining(&net.parse().unwrap(), &except);
        left.iter().map(|part| (part.first, part.last)).collect()
    }

    #[test]
    fn exceptions_leave_holes() {
        assert_eq!(left("0.0.0.0/28", &[]), [(0, 15)]);
        assert_eq!(left("0.0.0.0/28", &["0.0.0.4/30"]), [(0, 3), (8, 15)]);
        let nested = ["0.0.0.8/29", "0.0.0.8/30"];
        assert_eq!(left("0.0.0.0/28", &nested), [(0, 7)]);
        assert_eq!(left("0.0.0.0/31", &["0.0.0.0/32", "0.0.0.1/32"]), []);
        assert_eq!(left("::/0", &["8000::/1"]), [(0, u128::MAX >> 1)]);
    }
}
