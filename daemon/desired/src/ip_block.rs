//! `ipBlock`: a prefix without some of its parts.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netstate::route::masked;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An `ipBlock` whose parts do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IpBlockError {
    /// Kubernetes wants every `except` strictly inside `cidr`.
    #[error("except {except} is not inside cidr {cidr}: use a longer prefix within it")]
    ExceptOutside {
        /// The whole block.
        cidr: IpNetwork,
        /// The part that is not within it.
        except: IpNetwork,
    },
}

/// Addresses of `cidr` that are in none of `except`; host bits are cleared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IpBlock {
    cidr: IpNetwork,
    except: BTreeSet<IpNetwork>,
}

impl IpBlock {
    /// Puts a block together.
    ///
    /// # Errors
    /// When an `except` is not a proper part of `cidr`.
    pub fn new(
        cidr: IpNetwork,
        except: impl IntoIterator<Item = IpNetwork>,
    ) -> Result<Self, IpBlockError> {
        let cidr = masked(cidr);
        let except: BTreeSet<_> = except.into_iter().map(masked).collect();
        match except
            .iter()
            .find(|&&part| !covers(cidr, part) || part == cidr)
        {
            Some(&except) => Err(IpBlockError::ExceptOutside { cidr, except }),
            None => Ok(Self { cidr, except }),
        }
    }

    /// The whole block.
    #[must_use]
    pub fn cidr(&self) -> IpNetwork {
        self.cidr
    }

    /// Every prefix at which membership may change: `cidr` and the exceptions.
    pub fn boundaries(&self) -> impl Iterator<Item = IpNetwork> + '_ {
        std::iter::once(self.cidr).chain(self.except.iter().copied())
    }

    /// Whether an address belongs to the block.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.cidr.contains(address) && !self.except.iter().any(|part| part.contains(address))
    }

    /// Whether a whole prefix is within `cidr` and not within an exception. For a prefix taken
    /// from [`Self::boundaries`] of any set of blocks, this says whether an address belongs whose
    /// longest match among those boundaries is this prefix.
    #[must_use]
    pub fn contains_prefix(&self, prefix: IpNetwork) -> bool {
        covers(self.cidr, prefix) && !self.except.iter().any(|&part| covers(part, prefix))
    }
}

impl fmt::Display for IpBlock {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.cidr)?;
        for part in &self.except {
            write!(out, " except {part}")?;
        }
        Ok(())
    }
}

fn covers(outer: IpNetwork, inner: IpNetwork) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn exceptions_are_cut_out() {
        let block = IpBlock::new(network("10.0.0.7/8"), [network("10.1.0.0/16")]).unwrap();
        assert_eq!(block.to_string(), "10.0.0.0/8 except 10.1.0.0/16");
        assert!(block.contains("10.2.0.1".parse().unwrap()));
        assert!(!block.contains("10.1.0.1".parse().unwrap()));
        assert!(!block.contains("11.0.0.1".parse().unwrap()));
        assert!(!block.contains("fd00::1".parse().unwrap()));
        assert!(block.contains_prefix(network("10.2.0.0/16")));
        assert!(!block.contains_prefix(network("10.1.2.0/24")));
        assert!(!block.contains_prefix(network("0.0.0.0/0")));
    }

    #[test]
    fn an_exception_must_be_a_proper_part() {
        for except in ["11.0.0.0/8", "10.0.0.0/8", "0.0.0.0/0", "fd00::/8"] {
            let wrong = IpBlock::new(network("10.0.0.0/8"), [network(except)]).unwrap_err();
            assert!(wrong.to_string().contains(except), "{wrong}");
        }
    }
}
