//! A rule as the expressions of nftables' little machine: load into register 1, compare, act.

use std::net::IpAddr;

use netstate::nft::{
    Addresses, DeviceName, Family, FibKind, Mark, Match, Reject, Rule, Table, Verdict,
};

use crate::error::{Error, Result};
use crate::wire::message::Message;
use crate::wire::nf::{self, REG_1, REG_VERDICT};

const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const CT_STATUS_DNAT: u32 = 1 << 5;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
const FIB_ADDRESS_TYPE: u32 = 3;
const FIB_SOURCE: u32 = 1;
const FIB_DESTINATION: u32 = 2;
const LOOKUP_INVERTED: u32 = 1;
const RANDOM_FULLY: u32 = 1 << 4;
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

/// One expression of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expression {
    Meta { key: u32 },
    SetMeta { key: u32 },
    Payload { base: u32, offset: u32, length: u32 },
    Bitwise { mask: Vec<u8>, xor: Vec<u8> },
    Compare { op: u32, data: Vec<u8> },
    Lookup { set: String, inverted: bool },
    Conntrack { key: u32 },
    Fib { flags: u32 },
    Counter,
    Verdict { code: i32, chain: Option<String> },
    Masquerade { flags: u32 },
    Reject { kind: u32, code: u8 },
}

use Expression::{Bitwise, Compare, Conntrack, Fib, Lookup, Meta, Payload, SetMeta};

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
        list.push(verdict_of(verdict));
    }
    Ok(list)
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
    let (protocol, offset, length) = match (family, source) {
        (Family::V4, true) => (nf::NFPROTO_IPV4, 12, 4),
        (Family::V4, false) => (nf::NFPROTO_IPV4, 16, 4),
        (Family::V6, true) => (nf::NFPROTO_IPV6, 8, 16),
        (Family::V6, false) => (nf::NFPROTO_IPV6, 24, 16),
    };
    list.push(Meta { key: META_NFPROTO });
    list.push(Compare {
        op: EQUAL,
        data: vec![protocol],
    });
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

fn verdict_of(verdict: &Verdict) -> Expression {
    let plain = |code| Expression::Verdict { code, chain: None };
    match verdict {
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
    }
}

// === impl Expression ===

impl Expression {
    const fn name(&self) -> &'static str {
        match self {
            Self::Meta { .. } | Self::SetMeta { .. } => "meta",
            Self::Payload { .. } => "payload",
            Self::Bitwise { .. } => "bitwise",
            Self::Compare { .. } => "cmp",
            Self::Lookup { .. } => "lookup",
            Self::Conntrack { .. } => "ct",
            Self::Fib { .. } => "fib",
            Self::Counter => "counter",
            Self::Verdict { .. } => "immediate",
            Self::Masquerade { .. } => "masq",
            Self::Reject { .. } => "reject",
        }
    }

    /// Writes name and data (`enum nft_*_attributes`).
    pub(crate) fn write(&self, element: &mut Message) {
        element.text(nf::EXPR_NAME, self.name());
        element.nest(nf::EXPR_DATA, |data| self.write_data(data));
    }

    fn write_data(&self, data: &mut Message) {
        match self {
            Self::Meta { key } => {
                data.be32(1, REG_1).be32(2, *key);
            }
            Self::SetMeta { key } => {
                data.be32(2, *key).be32(3, REG_1);
            }
            Self::Payload {
                base,
                offset,
                length,
            } => {
                data.be32(1, REG_1)
                    .be32(2, *base)
                    .be32(3, *offset)
                    .be32(4, *length);
            }
            Self::Bitwise { mask, xor } => {
                let length = u32::try_from(mask.len()).unwrap_or(0);
                data.be32(1, REG_1).be32(2, REG_1).be32(3, length);
                data.nest(4, |value| {
                    value.attr(nf::DATA_VALUE, mask);
                });
                data.nest(5, |value| {
                    value.attr(nf::DATA_VALUE, xor);
                });
            }
            Self::Compare { op, data: bytes } => {
                data.be32(1, REG_1).be32(2, *op);
                data.nest(3, |value| {
                    value.attr(nf::DATA_VALUE, bytes);
                });
            }
            Self::Lookup { set, inverted } => {
                data.text(1, set).be32(2, REG_1);
                if *inverted {
                    data.be32(5, LOOKUP_INVERTED);
                }
            }
            Self::Conntrack { key } => {
                data.be32(1, REG_1).be32(2, *key);
            }
            Self::Fib { flags } => {
                data.be32(1, REG_1)
                    .be32(2, FIB_ADDRESS_TYPE)
                    .be32(3, *flags);
            }
            Self::Counter => {
                data.attr(1, &[0; 8]).attr(2, &[0; 8]);
            }
            Self::Verdict { code, chain } => {
                data.be32(1, REG_VERDICT);
                data.nest(2, |value| {
                    value.nest(nf::DATA_VERDICT, |verdict| {
                        verdict.be32(nf::VERDICT_CODE, code.cast_unsigned());
                        if let Some(chain) = chain {
                            verdict.text(nf::VERDICT_CHAIN, chain);
                        }
                    });
                });
            }
            Self::Masquerade { flags } => {
                if *flags != 0 {
                    data.be32(1, *flags);
                }
            }
            Self::Reject { kind, code } => {
                data.be32(1, *kind).attr(2, &[*code]);
            }
        }
    }
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
