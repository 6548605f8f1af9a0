//! Results in every version's schema (specification, "CNI result").

use ipnetwork::IpNetwork;
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::result::{AddResult, Dns, IpConfig, Route};
use crate::version::Version;

// === impl AddResult: versions ===

impl AddResult {
    /// The result as a JSON document of `version`.
    ///
    /// # Errors
    /// Code 2 when versions 0.1.0 and 0.2.0 cannot say it: there is no address.
    pub fn encode(&self, version: Version) -> Result<Value, Error> {
        let mut document = match version {
            Version::V010 | Version::V020 => self.encode_oldest()?,
            Version::V030 | Version::V031 | Version::V040 => self.encode_middle(),
            Version::V100 | Version::V110 => value_of(self),
        };
        if let Value::Object(fields) = &mut document {
            if version < Version::V110 {
                drop_newer_fields(fields);
            }
            fields.insert("cniVersion".to_owned(), version.as_str().into());
        }
        Ok(document)
    }

    /// Reads a result in the version it names, or else in `default`.
    ///
    /// # Errors
    /// Code 1 for an unknown version, code 6 for a document of another form.
    pub fn decode(document: &Value, default: Version) -> Result<(Self, Version), Error> {
        if !document.is_object() {
            return Err(Error::decode("a CNI result is JSON, but no object"));
        }
        let version = match document.get("cniVersion") {
            None | Some(Value::Null) => default,
            Some(named) => {
                let text = named.as_str().unwrap_or_default();
                let text = if text.is_empty() {
                    default.as_str()
                } else {
                    text
                };
                let unknown = || Error::version(format!("result of unknown cniVersion {named}"));
                Version::find(text).ok_or_else(unknown)?
            }
        };
        let result = match version {
            Version::V010 | Version::V020 => Self::decode_oldest(document)?,
            _ => from_value(document.clone())?,
        };
        Ok((result, version))
    }

    fn encode_oldest(&self) -> Result<Value, Error> {
        let mut fields = Map::new();
        for (name, v4) in [("ip4", true), ("ip6", false)] {
            let Some(ip) = self.ips.iter().find(|ip| ip.address.is_ipv4() == v4) else {
                continue;
            };
            let mut inner = Map::new();
            inner.insert("ip".to_owned(), ip.address.to_string().into());
            if let Some(gateway) = ip.gateway {
                inner.insert("gateway".to_owned(), gateway.to_string().into());
            }
            let routes: Vec<Value> = self
                .routes
                .iter()
                .filter(|r| r.dst.is_ipv4() == v4)
                .map(value_of)
                .collect();
            if !routes.is_empty() {
                inner.insert("routes".to_owned(), routes.into());
            }
            fields.insert(name.to_owned(), inner.into());
        }
        if fields.is_empty() {
            let msg = "a result without addresses cannot be said in cniVersion 0.1.0 or 0.2.0";
            return Err(Error::unsupported_field(msg));
        }
        fields.insert("dns".to_owned(), value_of(&self.dns));
        Ok(fields.into())
    }

    fn encode_middle(&self) -> Value {
        let mut document = value_of(self);
        for (ip, shown) in self.ips.iter().zip(array(&mut document, "ips")) {
            shown["version"] = if ip.address.is_ipv4() { "4" } else { "6" }.into();
        }
        document["dns"] = value_of(&self.dns);
        document
    }

    fn decode_oldest(document: &Value) -> Result<Self, Error> {
        let mut result = Self::default();
        for inner in ["ip4", "ip6"]
            .into_iter()
            .filter_map(|name| document.get(name))
        {
            if inner.is_null() {
                continue;
            }
            let address: IpNetwork = from_value(inner.get("ip").cloned().unwrap_or_default())?;
            let mut ip = json!({ "address": address });
            if let Some(gateway) = inner.get("gateway") {
                ip["gateway"] = gateway.clone();
            }
            result.ips.push(from_value::<IpConfig>(ip)?);
            if let Some(routes) = inner.get("routes").filter(|routes| !routes.is_null()) {
                result
                    .routes
                    .extend(from_value::<Vec<Route>>(routes.clone())?);
            }
        }
        if let Some(dns) = document.get("dns").filter(|dns| !dns.is_null()) {
            result.dns = from_value::<Dns>(dns.clone())?;
        }
        Ok(result)
    }
}

fn drop_newer_fields(fields: &mut Map<String, Value>) {
    let mut document = Value::Object(std::mem::take(fields));
    for interface in array(&mut document, "interfaces") {
        remove(interface, &["mtu", "socketPath", "pciID"]);
    }
    for route in array(&mut document, "routes") {
        remove(route, &["mtu", "advmss", "priority", "table", "scope"]);
    }
    for family in ["ip4", "ip6"] {
        if let Some(inner) = document.get_mut(family) {
            for route in array(inner, "routes") {
                remove(route, &["mtu", "advmss", "priority", "table", "scope"]);
            }
        }
    }
    if let Value::Object(kept) = document {
        *fields = kept;
    }
}

fn array<'a>(document: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    document
        .get_mut(name)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

fn remove(object: &mut Value, names: &[&str]) {
    if let Some(fields) = object.as_object_mut() {
        for name in names {
            fields.remove(*name);
        }
    }
}

fn value_of(part: impl serde::Serialize) -> Value {
    // The types here have text keys only, so there is nothing that could fail.
    serde_json::to_value(part).unwrap_or_default()
}

fn from_value<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Error> {
    serde_json::from_value(value)
        .map_err(|error| Error::decode("cannot decode a CNI result").details(error))
}
