//! The expressions of nftables' machine as attributes (`enum nft_*_attributes`).

use crate::wire::message::Message;
use crate::wire::nf::{self, REG_1, REG_2, REG_VERDICT};

const FIB_ADDRESS_TYPE: u32 = 3;
const LOOKUP_INVERTED: u32 = 1;
const NAT_DNAT: u32 = 1;
const CT_DIRECTION_ORIGINAL: u8 = 0;

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
    ConntrackOriginal { key: u32 },
    Fib { flags: u32 },
    Counter,
    Verdict { code: i32, chain: Option<String> },
    Masquerade { flags: u32 },
    Load { register: u32, data: Vec<u8> },
    Dnat { family: u8, port: bool },
    Reject { kind: u32, code: u8 },
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
            Self::Conntrack { .. } | Self::ConntrackOriginal { .. } => "ct",
            Self::Fib { .. } => "fib",
            Self::Counter => "counter",
            Self::Verdict { .. } | Self::Load { .. } => "immediate",
            Self::Dnat { .. } => "nat",
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
            Self::ConntrackOriginal { key } => {
                data.be32(1, REG_1).be32(2, *key);
                data.attr(3, &[CT_DIRECTION_ORIGINAL]);
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
            Self::Load {
                register,
                data: bytes,
            } => {
                data.be32(1, *register);
                data.nest(2, |value| {
                    value.attr(nf::DATA_VALUE, bytes);
                });
            }
            Self::Dnat { family, port } => {
                data.be32(1, NAT_DNAT).be32(2, u32::from(*family));
                data.be32(3, REG_1);
                if *port {
                    data.be32(5, REG_2);
                }
            }
            Self::Reject { kind, code } => {
                data.be32(1, *kind).attr(2, &[*code]);
            }
        }
    }
}
