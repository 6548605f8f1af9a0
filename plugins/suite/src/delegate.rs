//! A delegate's configuration, as `flannel` and `towline` make it, save it and replay it.

use ipnetwork::IpNetwork;
use netstate::route::masked;
use protocol::{AddResult, Attachment, Command, Error, Request, Version};
use serde_json::{Map, Value, json};

use crate::saved::Saved;

/// Stands for the node's subnet where that is not known: to release by owner, host-local wants a
/// range, any range. This one is kept for documentation (RFC 5737), so no pod ever had it.
const ANY_RANGE: &str = "192.0.2.0/24";

/// A delegate's network configuration: an object with a text `type`.
#[derive(Debug, Clone, PartialEq)]
pub struct Delegate {
    conf: Map<String, Value>,
}

// === impl Delegate ===

impl Delegate {
    /// `given`, made to plugin `kind`'s configuration of the request's network.
    #[must_use]
    pub fn new(request: &Request<'_>, given: &Map<String, Value>, kind: &str) -> Self {
        let mut conf = given.clone();
        conf.insert("cniVersion".to_owned(), request.version.as_str().into());
        conf.insert("name".to_owned(), request.network.as_str().into());
        conf.insert("type".to_owned(), kind.into());
        for passed in [
            "cni.dev/valid-attachments",
            "cni.dev/attachments",
            "args",
            "runtimeConfig",
        ] {
            if let Some(value) = request.config.get(passed) {
                conf.insert(passed.to_owned(), value.clone());
            }
        }
        Self { conf }
    }

    /// Reads a saved one; `None` for what is no configuration, such as half of one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let conf: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
        conf.get("type")?.as_str()?;
        Some(Self { conf })
    }

    /// As JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        json!(self.conf).to_string().into_bytes()
    }

    /// Sets `field`, unless it is set already.
    #[must_use]
    pub fn or(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.conf
            .entry(field.to_owned())
            .or_insert_with(|| value.into());
        self
    }

    /// Sets `ipam`.
    #[must_use]
    pub fn ipam(mut self, ipam: Map<String, Value>) -> Self {
        self.conf.insert("ipam".to_owned(), ipam.into());
        self
    }

    /// The network that it is for.
    #[must_use]
    pub fn network(&self) -> &str {
        self.text("name")
    }

    /// ADD.
    ///
    /// # Errors
    /// The delegate's.
    pub fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        request.delegate_add(self.text("type"), &self.encode())
    }

    /// Any other command.
    ///
    /// # Errors
    /// The delegate's.
    pub fn call(&self, request: &Request<'_>, command: Command) -> Result<(), Error> {
        request.delegate_call(self.text("type"), command, &self.encode())
    }

    /// DEL of an attachment made by this. The previous result goes with it if it is of this
    /// configuration's generation: the network's version may have changed since.
    ///
    /// # Errors
    /// The delegate's.
    pub fn replay_del(&self, request: &Request<'_>) -> Result<(), Error> {
        let mut replayed = self.clone();
        let own = Version::find(self.text("cniVersion"));
        if own.is_some_and(|own| own.same_schema(request.version)) {
            replayed.take_previous(request);
        }
        replayed.call(request, Command::Del)
    }

    /// CHECK of an attachment made by this, in the request's version, of which its previous result
    /// is.
    ///
    /// # Errors
    /// The delegate's.
    pub fn replay_check(&self, request: &Request<'_>) -> Result<(), Error> {
        let mut replayed = self.clone();
        let version = request.version.as_str().into();
        replayed.conf.insert("cniVersion".to_owned(), version);
        replayed.take_previous(request);
        replayed.call(request, Command::Check)
    }

    /// DEL of another attachment than the request's.
    ///
    /// # Errors
    /// The delegate's.
    pub fn del_of(&self, request: &Request<'_>, attachment: &Attachment) -> Result<(), Error> {
        let env = request
            .env
            .clone()
            .with("CNI_CONTAINERID", &attachment.container_id)
            .with("CNI_IFNAME", &attachment.ifname)
            .with("CNI_NETNS", "");
        let mut request = request.clone();
        request.env = &env;
        self.call(&request, Command::Del)
    }

    fn take_previous(&mut self, request: &Request<'_>) {
        if let Some(previous) = request.config.get("prevResult") {
            self.conf.insert("prevResult".to_owned(), previous.clone());
        }
    }

    fn text(&self, field: &str) -> &str {
        let value = self.conf.get(field).and_then(Value::as_str);
        value.unwrap_or_default()
    }
}

/// An IPAM configuration: `given`, by default host-local's, with one range per subnet and routes to
/// `destinations` after those that it has.
#[must_use]
pub fn ipam(
    given: &Map<String, Value>,
    subnets: &[IpNetwork],
    destinations: impl IntoIterator<Item = String>,
) -> Map<String, Value> {
    let mut ipam = given.clone();
    ipam.entry("type").or_insert_with(|| "host-local".into());
    let ranges: Vec<Value> = if subnets.is_empty() {
        vec![json!([{ "subnet": ANY_RANGE }])]
    } else {
        let range = |subnet: &IpNetwork| json!([{ "subnet": masked(*subnet) }]);
        subnets.iter().map(range).collect()
    };
    ipam.insert("ranges".to_owned(), ranges.into());
    let given = ipam.get("routes").and_then(Value::as_array);
    let mut routes = given.cloned().unwrap_or_default();
    for destination in destinations {
        if !routes
            .iter()
            .any(|route| route["dst"] == *destination.as_str())
        {
            routes.push(json!({ "dst": destination }));
        }
    }
    ipam.insert("routes".to_owned(), routes.into());
    ipam
}

/// Forgets an attachment whose ADD failed, after the delegate's DEL came out as `undone`.
///
/// What cannot be undone now is kept, for the DEL that follows; but not a configuration that the
/// delegate refuses to read, since every DEL would fail by it, and the ADD did nothing with it.
///
/// # Errors
/// The delegate's error, or that the file cannot be removed.
pub fn forget(
    saved: &Saved,
    attachment: &Attachment,
    undone: Result<(), Error>,
) -> Result<(), Error> {
    let is_refused = |error: &Error| matches!(error.code, 1 | 2 | 4 | 6 | 7);
    match undone {
        Err(error) if !is_refused(&error) => Err(error),
        outcome => saved.remove(attachment).and(outcome),
    }
}

/// `error`, and what went wrong while the ADD that it ended was undone.
#[must_use]
pub fn with_undoing(error: Error, failures: impl IntoIterator<Item = Result<(), Error>>) -> Error {
    let mut details = error.details.clone();
    for failure in failures.into_iter().filter_map(Result::err) {
        let separator = if details.is_empty() { "" } else { "; " };
        details += &format!("{separator}then, undoing: {failure}");
    }
    error.details(details)
}
