//! What every cluster has from the start.

use serde_json::json;

use super::{Api, Target, WriteOptions};
use crate::status::ApiError;

/// Namespaces that are always there.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

impl Api {
    /// Creates what is missing of the standard namespaces.
    ///
    /// # Errors
    /// When the store takes no writes.
    pub async fn bootstrap(&self) -> Result<(), ApiError> {
        let namespaces = self.registry.find("", "v1", "namespaces");
        let namespaces = namespaces.ok_or_else(ApiError::no_such_path)?.clone();
        for name in NAMESPACES {
            let target = Target::new(&namespaces, "", "");
            let namespace = json!({"metadata": {"name": name}});
            match self
                .create(&target, namespace, WriteOptions::default())
                .await
            {
                Err(error) if error.code == 409 => {}
                other => drop(other?),
            }
        }
        Ok(())
    }
}
