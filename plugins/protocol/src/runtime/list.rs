//! PURE: configuration lists as text, and one plugin's standard input.

use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::request::is_identifier;
use crate::version::Version;

/// A network: its plugins, in the order of ADD.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkList {
    /// The network's name.
    pub name: String,
    /// The version of configuration and results: the highest of `cniVersions` that is spoken here.
    pub version: Version,
    /// CHECK is not to be called.
    pub disable_check: bool,
    /// GC is not to be called.
    pub disable_gc: bool,
    /// Configurations in the folder called like the network are not part of it.
    pub only_inlined: bool,
    /// The plugins' configurations; each has a text `type`.
    pub plugins: Vec<Map<String, Value>>,
    /// The document, as it is kept with a result.
    pub source: Vec<u8>,
}

// === impl NetworkList ===

impl NetworkList {
    /// Reads a configuration list. It may be without plugins when they are in a folder.
    ///
    /// # Errors
    /// Code 6 for another form, 7 for values that cannot be, 1 when no version of it is spoken.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let document = object(text)?;
        let name = name(&document)?;
        let (disable_check, disable_gc) = (
            flag(&document, "disableCheck")?,
            flag(&document, "disableGC")?,
        );
        let only_inlined = flag(&document, "loadOnlyInlinedPlugins")?;
        let plugins = match document.get("plugins") {
            None if only_inlined => {
                let msg = "loadOnlyInlinedPlugins is true and there is no plugins; add them";
                return Err(Error::config(msg));
            }
            None => Vec::new(),
            Some(Value::Array(plugins)) if plugins.is_empty() => {
                return Err(Error::config("plugins is empty; list one at least"));
            }
            Some(Value::Array(plugins)) => {
                plugins.iter().map(plugin).collect::<Result<Vec<_>, _>>()?
            }
            Some(other) => return Err(Error::decode(format!("plugins {other} is no list"))),
        };
        Ok(Self {
            name,
            version: version(&document)?,
            disable_check,
            disable_gc,
            only_inlined,
            plugins,
            source: text.to_vec(),
        })
    }

    /// Reads the configuration of a single plugin as a list of one.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_single(text: &[u8]) -> Result<Self, Error> {
        let document = object(text)?;
        let mut list = Map::new();
        for key in ["cniVersion", "name"] {
            if let Some(value) = document.get(key) {
                list.insert(key.to_owned(), value.clone());
            }
        }
        list.insert("plugins".to_owned(), json!([document]));
        Self::parse(json!(list).to_string().as_bytes())
    }

    /// Adds a plugin from a file of its own.
    ///
    /// # Errors
    /// Code 6 for another form, 7 without a `type`.
    pub fn push(&mut self, text: &[u8]) -> Result<(), Error> {
        let document = Value::Object(object(text)?);
        self.plugins.push(plugin(&document)?);
        Ok(())
    }
}

/// One plugin's standard input: its own keys, the network's name and version, the arguments of
/// capabilities that it declares, and the result before it.
#[must_use]
pub fn plugin_config(
    name: &str,
    version: Version,
    plugin: &Map<String, Value>,
    capabilities: &Map<String, Value>,
    previous: Option<&Value>,
) -> Map<String, Value> {
    let mut config = plugin.clone();
    config.insert("name".to_owned(), name.into());
    config.insert("cniVersion".to_owned(), version.as_str().into());
    let declared = plugin.get("capabilities").and_then(Value::as_object);
    let declared = |key: &str| declared.and_then(|all| all.get(key)) == Some(&Value::Bool(true));
    let runtime: Map<String, Value> = capabilities
        .iter()
        .filter(|(key, _)| declared(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if !runtime.is_empty() {
        config.insert("runtimeConfig".to_owned(), runtime.into());
    }
    if let Some(previous) = previous {
        config.insert("prevResult".to_owned(), previous.clone());
    }
    config
}

fn object(text: &[u8]) -> Result<Map<String, Value>, Error> {
    serde_json::from_slice(text)
        .map_err(|error| Error::decode("the configuration is no JSON object").details(error))
}

fn name(document: &Map<String, Value>) -> Result<String, Error> {
    match document.get("name") {
        Some(Value::String(name)) if is_identifier(name) => Ok(name.clone()),
        None => Err(Error::config("name is missing; name the network")),
        Some(other) => {
            let msg = format!(
                "name {other} must begin with a letter or digit and go on with letters, digits, \
                 '_', '.' and '-'"
            );
            Err(Error::config(msg))
        }
    }
}

fn version(document: &Map<String, Value>) -> Result<Version, Error> {
    let alternatives = match document.get("cniVersions") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(versions)) => versions,
        Some(other) => return Err(Error::decode(format!("cniVersions {other} is no list"))),
    };
    let named: Vec<&Value> = alternatives
        .iter()
        .chain(document.get("cniVersion"))
        .collect();
    let mut texts = Vec::new();
    for value in named {
        let text = value.as_str();
        texts.push(text.ok_or_else(|| Error::decode(format!("cniVersion {value} is no text")))?);
    }
    texts.retain(|text| !text.is_empty());
    if texts.is_empty() {
        return Ok(Version::V010);
    }
    let spoken = texts.iter().filter_map(|text| Version::find(text)).max();
    spoken.ok_or_else(|| {
        let texts = texts.join(", ");
        Error::version(format!(
            "cniVersion {texts} is not supported; give one from 0.1.0 to 1.1.0"
        ))
    })
}

/// A switch: a JSON boolean, or its text in any case.
fn flag(document: &Map<String, Value>, key: &str) -> Result<bool, Error> {
    match document.get(key) {
        None | Some(Value::Bool(false)) => Ok(false),
        Some(Value::Bool(true)) => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(other) => Err(Error::config(format!("{key} {other} is not true or false"))),
    }
}

fn plugin(document: &Value) -> Result<Map<String, Value>, Error> {
    let fields = document.as_object();
    let fields = fields.ok_or_else(|| Error::decode(format!("plugin {document} is no object")))?;
    match fields.get("type").and_then(Value::as_str) {
        Some(kind) if !kind.is_empty() && !kind.contains('/') && !kind.starts_with('.') => {
            Ok(fields.clone())
        }
        Some(kind) => Err(Error::config(format!(
            "plugin type {kind:?} must be the file name of a plugin"
        ))),
        None => Err(Error::config(format!("plugin {document} has no type"))),
    }
}
