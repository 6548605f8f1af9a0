//! An object serialised before its revision is known.

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use serde_json::Value;

use super::Index;

/// Stands where the revision goes. Random, so that no object can contain it by design.
static MARK: LazyLock<String> = LazyLock::new(|| format!("revision:{}", uuid::Uuid::new_v4()));

/// A serialised object with a gap for `metadata.resourceVersion`, so that the commit thread only
/// copies bytes.
#[derive(Debug)]
pub struct Draft {
    before: Vec<u8>,
    after: Vec<u8>,
    index: Index,
}

impl Draft {
    /// Serialises `object`, whose `metadata` must be a JSON object.
    ///
    /// # Errors
    /// When `metadata` is missing, or the object cannot be serialised.
    pub fn new(mut object: Value, index: Index) -> serde_json::Result<Self> {
        use serde::ser::Error;
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
            return Err(serde_json::Error::custom("object without metadata"));
        };
        metadata.insert("resourceVersion".into(), Value::from(MARK.as_str()));
        let mut before = serde_json::to_vec(&object)?;
        let mark = MARK.as_bytes();
        let at = before.windows(mark.len()).position(|window| window == mark);
        let at = at.ok_or_else(|| serde_json::Error::custom("revision mark lost"))?;
        let after = before.split_off(at).split_off(mark.len());
        Ok(Self {
            before,
            after,
            index,
        })
    }

    /// The finished bytes for `revision`, and the index.
    pub(crate) fn finish(self, revision: u64) -> (Bytes, Index) {
        let digits = revision.to_string();
        let mut body = BytesMut::with_capacity(self.before.len() + digits.len() + self.after.len());
        body.extend_from_slice(&self.before);
        body.extend_from_slice(digits.as_bytes());
        body.extend_from_slice(&self.after);
        (body.freeze(), self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revision_is_put_into_the_gap() {
        let object = serde_json::json!({"kind":"A","metadata":{"name":"a","uid":"u"},"z":[1,"é"]});
        let (body, _) = Draft::new(object, Index::default()).unwrap().finish(42);
        assert_eq!(
            body,
            r#"{"kind":"A","metadata":{"name":"a","resourceVersion":"42","uid":"u"},"z":[1,"é"]}"#
        );
    }

    #[test]
    fn an_object_without_metadata_is_refused() {
        assert!(Draft::new(serde_json::json!({"kind":"A"}), Index::default()).is_err());
    }
}
