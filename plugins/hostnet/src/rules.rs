//! Rules of the routing policy (`ip-rule(8)`) for single source addresses.

use netstate::SourceRule;

use crate::addrs::family;
use crate::error::{Result, absent_is_fine};
use crate::socket::Netlink;
use crate::wire::message::{Message, NLM_F_CREATE, NLM_F_EXCL, Reply, find, read_ip, read_u32};
use crate::wire::rt::{FR_ACT_TO_TBL, FRA_SRC, FRA_TABLE, RTM_DELRULE, RTM_GETRULE, RTM_NEWRULE};

/// Length of `struct fib_rule_hdr`.
const RULE: usize = 12;

// === impl Netlink: rules ===

impl Netlink {
    /// The rules that lead one source address to a table, and the tables that any rule leads to.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn source_rules(&mut self) -> Result<(Vec<SourceRule>, Vec<u32>)> {
        let (mut rules, mut tables) = (Vec::new(), Vec::new());
        for number in [libc::AF_INET, libc::AF_INET6] {
            let mut body = [0; RULE];
            body[0] = u8::try_from(number).unwrap_or(0);
            let message = Message::new(RTM_GETRULE, 0, &body);
            for reply in self.wire.dump(&message, ("list", &"rules"))? {
                tables.extend(table(&reply));
                rules.extend(parse(&reply));
            }
        }
        Ok((rules, tables))
    }

    /// Adds a rule before all that are there but the one for the local table. The kernel takes the
    /// same rule twice.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_rule(&mut self, rule: &SourceRule) -> Result<()> {
        let message = message(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, rule);
        self.wire.request(message, ("add rule", rule))
    }

    /// Removes a rule; an absent one is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_rule(&mut self, rule: &SourceRule) -> Result<()> {
        let message = message(RTM_DELRULE, 0, rule);
        absent_is_fine(self.wire.request(message, ("delete rule", rule)))
    }
}

fn message(kind: u16, flags: u16, rule: &SourceRule) -> Message {
    let mut body = [0; RULE];
    body[0] = family(rule.source);
    body[2] = if rule.source.is_ipv4() { 32 } else { 128 };
    body[7] = FR_ACT_TO_TBL;
    let mut message = Message::new(kind, flags, &body);
    message.ip(FRA_SRC, rule.source).u32(FRA_TABLE, rule.table);
    message
}

fn table(reply: &Reply) -> Option<u32> {
    let attributes = reply.body.get(RULE..)?;
    let own = find(attributes, FRA_TABLE).map(|value| read_u32(value, 0));
    own.filter(|_| reply.body[7] == FR_ACT_TO_TBL)
}

fn parse(reply: &Reply) -> Option<SourceRule> {
    let source = find(reply.body.get(RULE..)?, FRA_SRC).and_then(read_ip)?;
    let whole = reply.body[2] == if source.is_ipv4() { 32 } else { 128 };
    let rule = SourceRule {
        source,
        table: table(reply)?,
    };
    whole.then_some(rule)
}
