//! A rule as the expressions of nftables' little machine: load into register 1, compare, act.

mod machine;

use std::net::IpAddr;

use netstate::nft::{
    Addresses, DeviceName, Family, FibKind, Mark, Match, Reject, Rule, Table, TableFamily, Verdict,
};

use crate::error::{Error, Result};
use crate::wire::nf::{self, REG_1, REG_2};

const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

const META_PROTOCOL: u32 = 1;
const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const CT_PROTO_DST: u32 = 12;
const CT_STATUS_DNAT: u32 = 1 << 5;
const BASE_LINK: u32 = 0;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
const FIB_SOURCE: u32 = 1;
const FIB_DESTINATION: u32 = 2;
const RANDOM_FULLY: u32 = 1 << 4;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const REJECT_TCP_RESET: u32 = 1;
const REJECT_ICMPX: u32 = 2;
const ICMPX_PORT_UNREACHABLE: u8 = 1;
const ICMPX_ADMIN_PROHIBITED: u8 = 3;
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const JUMP: i32 = -3;
const GOTO: i32 = -4;
const RETURN: i32 = -5;
const IFNAMSIZ: usize = 16;

use machine::Expression::{Bitwise, Compare, Conntrack, Fib, Load, Lookup, Meta, Payload, SetMeta};

pub(crate) use machine::Expression;

/// The expressions of `rule`, whose sets are looked up in `table`.
pub(crate) fn of(table: &Table, rule: &Rule) -> Result<Vec<Expression>> {
    let mut list = Vec::new();
    for condition in &rule.matches {
        condition_of(table, condition, &mut list)?;
    }
    if rule.counter {
        list.push(Expression::Counter);
    }
    if let Some(Mark { mask, value }) = rule.set_mark {
        list.push(Meta { key: META_MARK });
        list.push(Bitwise {
            mask: native(!mask),
            xor: native(value & mask),
        });
        list.push(SetMeta { key: META_MARK });
    }
    if let Some(verdict) = &rule.verdict {
        verdict_of(verdict, &mut list);
    }
    Ok(list)
}

fn load_target(address: IpAddr, port: Option<u16>, list: &mut Vec<Expression>) {
    list.push(Load {
        register: REG_1,
        data: octets(address),
    });
    if let Some(port) = port {
        list.push(Load {
            register: REG_2,
            data: port.to_be_bytes().to_vec(),
        });
    }
}

fn condition_of(table: &Table, condition: &Match, list: &mut Vec<Expression>) -> Result<()> {
    let equal = |data: Vec<u8>| Compare { op: EQUAL, data };
    match condition {
        Match::Source(which) => addresses(table, which, true, false, list)?,
        Match::NotSource(which) => addresses(table, which, true, true, list)?,
        Match::Destination(which) => addresses(table, which, false, false, list)?,
        Match::NotDestination(which) => addresses(table, which, false, true, list)?,
        Match::InDevice(name) => device(META_IIFNAME, name, EQUAL, list),
        Match::NotInDevice(name) => device(META_IIFNAME, name, NOT_EQUAL, list),
        Match::OutDevice(name) => device(META_OIFNAME, name, EQUAL, list),
        Match::NotOutDevice(name) => device(META_OIFNAME, name, NOT_EQUAL, list),
        Match::EthernetSource(mac) => {
            let (base, offset, length) = (BASE_LINK, 6, 6);
            list.push(Payload {
                base,
                offset,
                length,
            });
            list.push(equal(mac.octets().to_vec()));
        }
        Match::Mark(Mark { mask, value }) => {
            list.push(Meta { key: META_MARK });
            if *mask != u32::MAX {
                list.push(Bitwise {
                    mask: native(*mask),
                    xor: native(0),
                });
            }
            list.push(equal(native(*value)));
        }
        Match::CtState(states) => any_bit(CT_STATE, states.bits(), list),
        Match::Dnatted => any_bit(CT_STATUS, CT_STATUS_DNAT, list),
        Match::Protocol(number) => {
            list.push(Meta { key: META_L4PROTO });
            list.push(equal(vec![*number]));
        }
        Match::SourcePort(port) => {
            list.push(Payload {
                base: BASE_TRANSPORT,
                offset: 0,
                length: 2,
            });
            list.push(equal(port.to_be_bytes().to_vec()));
        }
        Match::DestinationPort(port) => {
            list.push(Payload {
                base: BASE_TRANSPORT,
                offset: 2,
                length: 2,
            });
            list.push(equal(port.to_be_bytes().to_vec()));
        }
        Match::OriginalDestinationPort(port) => {
            list.push(Expression::ConntrackOriginal { key: CT_PROTO_DST });
            list.push(equal(port.to_be_bytes().to_vec()));
        }
        Match::DestinationKind(kind) => {
            list.push(Fib {
                flags: FIB_DESTINATION,
            });
            list.push(equal(native(fib_number(*kind))));
        }
        Match::SourceKind(kind) => {
            list.push(Fib { flags: FIB_SOURCE });
            list.push(equal(native(fib_number(*kind))));
        }
    }
    Ok(())
}

fn addresses(
    table: &Table,
    which: &Addresses,
    source: bool,
    inverted: bool,
    list: &mut Vec<Expression>,
) -> Result<()> {
    let family = match which {
        Addresses::Prefix(network) => Family::of(network),
        Addresses::Set(name) => match table.sets.get(name) {
            Some(set) => set.family,
            None => {
                let reason = format!("is not in table {}", table.name);
                return Err(Error::invalid("encode rule: set", name, reason));
            }
        },
    };
    of_family(table, family, list)?;
    let (offset, length) = match (family, source) {
        (Family::V4, true) => (12, 4),
        (Family::V4, false) => (16, 4),
        (Family::V6, true) => (8, 16),
        (Family::V6, false) => (24, 16),
    };
    list.push(Payload {
        base: BASE_NETWORK,
        offset,
        length,
    });
    match which {
        Addresses::Set(name) => list.push(Lookup {
            set: name.clone(),
            inverted,
        }),
        Addresses::Prefix(network) => {
            let (data, mask) = (octets(network.network()), octets(network.mask()));
            if mask.iter().any(|byte| *byte != 0xff) {
                let xor = vec![0; mask.len()];
                list.push(Bitwise { mask, xor });
            }
            list.push(Compare {
                op: if inverted { NOT_EQUAL } else { EQUAL },
                data,
            });
        }
    }
    Ok(())
}

/// What a packet must be for its addresses to be of `family`, where the table sees others too.
fn of_family(table: &Table, family: Family, list: &mut Vec<Expression>) -> Result<()> {
    let (key, data) = match (table.family, family) {
        (TableFamily::Ip, Family::V4) | (TableFamily::Ip6, Family::V6) => return Ok(()),
        (TableFamily::Inet, Family::V4) => (META_NFPROTO, vec![nf::NFPROTO_IPV4]),
        (TableFamily::Inet, Family::V6) => (META_NFPROTO, vec![nf::NFPROTO_IPV6]),
        (TableFamily::Bridge, Family::V4) => (META_PROTOCOL, ETHERTYPE_IPV4.to_be_bytes().to_vec()),
        (TableFamily::Bridge, Family::V6) => (META_PROTOCOL, ETHERTYPE_IPV6.to_be_bytes().to_vec()),
        (TableFamily::Ip, Family::V6) | (TableFamily::Ip6, Family::V4) => {
            let reason = "matches addresses of the other family";
            return Err(Error::invalid("encode rule of table", &table.name, reason));
        }
    };
    list.push(Meta { key });
    list.push(Compare { op: EQUAL, data });
    Ok(())
}

fn device(key: u32, name: &DeviceName, op: u32, list: &mut Vec<Expression>) {
    let data = match name {
        DeviceName::BeginsWith(name) => name.as_str().as_bytes().to_vec(),
        DeviceName::Is(name) => {
            let mut bytes = name.as_str().as_bytes().to_vec();
            bytes.resize(IFNAMSIZ, 0);
            bytes
        }
    };
    list.push(Meta { key });
    list.push(Compare { op, data });
}

fn any_bit(key: u32, bits: u32, list: &mut Vec<Expression>) {
    list.push(Conntrack { key });
    list.push(Bitwise {
        mask: native(bits),
        xor: native(0),
    });
    list.push(Compare {
        op: NOT_EQUAL,
        data: native(0),
    });
}

fn verdict_of(verdict: &Verdict, list: &mut Vec<Expression>) {
    let plain = |code| Expression::Verdict { code, chain: None };
    let last = match verdict {
        Verdict::Accept => plain(ACCEPT),
        Verdict::Drop => plain(DROP),
        Verdict::Return => plain(RETURN),
        Verdict::Jump(chain) => Expression::Verdict {
            code: JUMP,
            chain: Some(chain.clone()),
        },
        Verdict::Goto(chain) => Expression::Verdict {
            code: GOTO,
            chain: Some(chain.clone()),
        },
        Verdict::Masquerade { random_fully } => Expression::Masquerade {
            flags: if *random_fully { RANDOM_FULLY } else { 0 },
        },
        Verdict::Reject(Reject::PortUnreachable) => Expression::Reject {
            kind: REJECT_ICMPX,
            code: ICMPX_PORT_UNREACHABLE,
        },
        Verdict::Reject(Reject::AdminProhibited) => Expression::Reject {
            kind: REJECT_ICMPX,
            code: ICMPX_ADMIN_PROHIBITED,
        },
        Verdict::Reject(Reject::TcpReset) => Expression::Reject {
            kind: REJECT_TCP_RESET,
            code: 0,
        },
        Verdict::Dnat { address, port } => {
            load_target(*address, *port, list);
            Expression::Dnat {
                family: if address.is_ipv4() {
                    nf::NFPROTO_IPV4
                } else {
                    nf::NFPROTO_IPV6
                },
                port: port.is_some(),
            }
        }
    };
    list.push(last);
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn native(value: u32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

/// The kernel's route type (`RTN_…`).
const fn fib_number(kind: FibKind) -> u32 {
    match kind {
        FibKind::Unicast => 1,
        FibKind::Local => 2,
        FibKind::Broadcast => 3,
        FibKind::Multicast => 5,
    }
}
