//! What a rule that sends packets elsewhere does, read from its expressions.

use std::net::IpAddr;

use crate::wire::message::{attrs, find, read_ip, read_text};
use crate::wire::nf;

const PAYLOAD_OFFSET: u16 = 3;
const CMP_DATA: u16 = 3;
const LOAD_DATA: u16 = 2;
/// Offset of the destination port in a layer 4 header, as the kernel shows it.
const DESTINATION: [u8; 4] = 2_u32.to_be_bytes();

/// Packets of a protocol to a port of this host go to an address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    /// Layer 4 protocol number.
    pub protocol: u8,
    /// The host's port.
    pub port: u16,
    /// The new destination.
    pub address: IpAddr,
    /// Its port; the same one if `None`.
    pub target_port: Option<u16>,
}

/// The redirection in a list of expressions, whoever wrote it.
pub(crate) fn of(expressions: &[u8]) -> Option<Redirect> {
    let (mut protocol, mut port, mut address, mut target_port) = (None, None, None, None);
    let mut before = (String::new(), &[][..]);
    for (_, expression) in attrs(expressions) {
        let name = find(expression, nf::EXPR_NAME).map(read_text)?;
        let data = find(expression, nf::EXPR_DATA).unwrap_or_default();
        let value = |kind| find(find(data, kind)?, nf::DATA_VALUE);
        match (name.as_str(), before.0.as_str()) {
            ("cmp", "meta") => {
                if let Some([number]) = value(CMP_DATA) {
                    protocol = Some(*number);
                }
            }
            ("cmp", "payload") => {
                let is_port = find(before.1, PAYLOAD_OFFSET) == Some(&DESTINATION);
                if let (true, Some(bytes)) = (is_port, value(CMP_DATA)) {
                    port = bytes.try_into().ok().map(u16::from_be_bytes);
                }
            }
            ("immediate", _) => match value(LOAD_DATA) {
                Some(bytes) if bytes.len() == 2 => {
                    target_port = bytes.try_into().ok().map(u16::from_be_bytes);
                }
                Some(bytes) => address = read_ip(bytes),
                None => {}
            },
            ("nat", _) => {
                return Some(Redirect {
                    protocol: protocol?,
                    port: port?,
                    address: address?,
                    target_port,
                });
            }
            _ => {}
        }
        before = (name, data);
    }
    None
}
