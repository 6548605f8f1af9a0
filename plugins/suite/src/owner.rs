//! Whose a rule is: the comment by which an attachment's rules are found again.
//!
//! It is the reference plugins' own (`ipMasq`, nftables backend), so that either side removes what
//! the other has made.

use protocol::Attachment;
use sha2::{Digest, Sha512};

const COMMENT_MAX: usize = 128;
const HASH_DIGITS: usize = 16;

/// The comment of everything that belongs to an attachment: 16 hexadecimal digits each of network
/// and interface with container, then all three in plain text, cut to 128 bytes.
#[must_use]
pub fn comment(network: &str, attachment: &Attachment) -> String {
    let Attachment {
        container_id,
        ifname,
    } = attachment;
    let id = instance(network, attachment);
    let mut text = format!("{id}, net: {network}, if: {ifname}, id: {container_id}");
    // All parts but an interface's name are ASCII; a cut through that is taken back to its start.
    while text.len() > COMMENT_MAX {
        text.pop();
    }
    text
}

/// Whether a comment is of an attachment of `network` that is not in `valid`.
pub fn is_stale(network: &str, valid: &[Attachment]) -> impl Fn(&str) -> bool {
    let of_network = format!("{}-", hash(network));
    let kept: Vec<String> = valid.iter().map(|one| instance(network, one)).collect();
    move |comment| {
        let id = comment.split(',').next().unwrap_or_default();
        comment.starts_with(&of_network) && !kept.iter().any(|kept| kept == id)
    }
}

/// Network and attachment as 16 hexadecimal digits each, with `-` between.
#[must_use]
pub fn instance(network: &str, attachment: &Attachment) -> String {
    let own = hash(&format!(
        "{}:{}",
        attachment.ifname, attachment.container_id
    ));
    format!("{}-{own}", hash(network))
}

fn hash(text: &str) -> String {
    let digest = Sha512::digest(text.as_bytes());
    digest
        .iter()
        .take(HASH_DIGITS / 2)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_the_reference_plugins_and_fit() {
        let one = Attachment {
            container_id: "c1".into(),
            ifname: "eth0".into(),
        };
        // printf net | sha512sum | cut -c-16; printf eth0:c1 | sha512sum | cut -c-16
        assert_eq!(
            comment("net", &one),
            "a4861f4ae9f7d238-f4d01f2ef4b92245, net: net, if: eth0, id: c1"
        );
        let long = Attachment {
            container_id: "c".repeat(200),
            ifname: "eth0".into(),
        };
        assert_eq!(comment("net", &long).len(), COMMENT_MAX);
    }
}
