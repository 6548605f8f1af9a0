//! A case: a good call of a plugin, and what is done to its configuration and its environment.

use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::values::{TEXTS, plugin_names, value};
use crate::world::World;

pub(crate) const COMMANDS: [&str; 6] = ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"];

/// A case, as few numbers as describe it.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    plugin: usize,
    command: usize,
    config: Vec<Change>,
    bytes: Option<Damage>,
    env: Vec<(usize, usize)>,
    /// Whether the good call's ADD goes before.
    attached: bool,
}

/// What is done to one place of the configuration.
#[derive(Debug, Clone)]
enum Change {
    Replace { place: usize, value: usize },
    Remove { place: usize },
    Plugin { place: usize, name: usize },
    Double { place: usize },
    Add { key: usize, value: usize },
}

/// What is done to the configuration's text.
#[derive(Debug, Clone)]
enum Damage {
    Cut(usize),
    Byte(usize, u8),
    Insert(usize, Vec<u8>),
    SecondName(usize),
    Nested(usize),
    Random(Vec<u8>),
}

/// What a plugin gets.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub(crate) plugin: &'static str,
    pub(crate) command: Vec<u8>,
    pub(crate) env: Vec<(String, Vec<u8>)>,
    pub(crate) stdin: Vec<u8>,
    /// Folders that the configuration names.
    pub(crate) folders: Vec<String>,
}

pub(crate) fn case() -> impl Strategy<Value = Case> {
    let place = 0..60_usize;
    let number = any::<u16>().prop_map(usize::from);
    let change = prop_oneof![
        6 => (place.clone(), number.clone()).prop_map(|(place, value)| Change::Replace { place, value }),
        2 => place.clone().prop_map(|place| Change::Remove { place }),
        1 => (place.clone(), number.clone()).prop_map(|(place, name)| Change::Plugin { place, name }),
        1 => place.prop_map(|place| Change::Double { place }),
        2 => (number.clone(), number.clone()).prop_map(|(key, value)| Change::Add { key, value }),
    ];
    let damage = prop_oneof![
        number.clone().prop_map(Damage::Cut),
        (number.clone(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        (number.clone(), vec(any::<u8>(), 1..4)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        number.clone().prop_map(Damage::SecondName),
        (0..20_000_usize).prop_map(Damage::Nested),
        vec(any::<u8>(), 0..64).prop_map(Damage::Random),
    ];
    let damage = prop_oneof![5 => Just(None), 1 => damage.prop_map(Some)];
    let env = prop_oneof![
        2 => Just(Vec::new()),
        1 => vec((0..7_usize, number.clone()), 1..3),
    ];
    // Most failures worth finding need an ADD or a DEL.
    let command = prop_oneof![6 => Just(0), 4 => Just(1), 3 => Just(2), 2 => Just(3), 2 => Just(4), 1 => Just(5)];
    (
        number,
        command,
        vec(change, 0..4),
        damage,
        env,
        any::<bool>(),
    )
        .prop_map(|(plugin, command, config, bytes, env, attached)| Case {
            plugin,
            command,
            config,
            bytes,
            env,
            attached,
        })
}

// === impl Case ===

impl Case {
    fn plugin(&self) -> &'static str {
        let plugins = towline_suite::PLUGINS;
        plugins[self.plugin % plugins.len()].name()
    }

    /// The good ADD that goes before, if one does.
    pub(crate) fn before(&self, world: &World<'_>) -> Option<Input> {
        let plugin = self.plugin();
        let is_later = match COMMANDS[self.command] {
            "CHECK" | "GC" => true,
            // What tuning changed is put back once: not by the second DEL if the first one was told
            // of another namespace.
            "DEL" => plugin != "tuning",
            _ => false,
        };
        (self.attached && is_later).then(|| Input {
            plugin,
            command: b"ADD".to_vec(),
            env: world.env(plugin, "ADD"),
            stdin: world.config(plugin).to_string().into_bytes(),
            folders: world.folders(),
        })
    }

    pub(crate) fn build(&self, world: &World<'_>) -> Input {
        let plugin = self.plugin();
        let mut config = world.config(plugin);
        for change in &self.config {
            change.apply(&mut config);
        }
        let text = config.to_string().into_bytes();
        let stdin = match &self.bytes {
            Some(damage) => damage.apply(text),
            None => text,
        };
        let mut folders = Vec::new();
        let read = serde_json::from_slice(&stdin).unwrap_or(config);
        collect_folders(&read, &mut folders);
        let mut env = world.env(plugin, COMMANDS[self.command]);
        for (variable, pick) in &self.env {
            world.spoil(&mut env, *variable, *pick);
        }
        let command = env.iter().find(|(name, _)| name == "CNI_COMMAND");
        Input {
            plugin,
            command: command.map(|(_, value)| value.clone()).unwrap_or_default(),
            env,
            stdin,
            folders,
        }
    }
}

// === impl Input ===

impl Input {
    /// The same with another command.
    pub(crate) fn with_command(&self, command: &str) -> Self {
        let mut other = self.clone();
        for (name, value) in &mut other.env {
            if name == "CNI_COMMAND" {
                *value = command.into();
            }
        }
        other.command = command.into();
        other
    }
}

// === impl Change ===

impl Change {
    fn apply(&self, config: &mut Value) {
        match self {
            Self::Replace { place, value: pick } => {
                if let Some(found) = nth(config, *place) {
                    *found = value(*pick);
                }
            }
            Self::Remove { place } => remove_nth(config, *place),
            Self::Plugin { place, name } => {
                let names = plugin_names();
                let name = &names[name % names.len()];
                let ipam = config.pointer_mut("/ipam/type").filter(|_| place % 2 == 0);
                match ipam {
                    Some(found) => *found = name.clone().into(),
                    None => config["ipam"] = serde_json::json!({ "type": name }),
                }
            }
            Self::Double { place } => {
                if let Some(found) = nth(config, *place) {
                    *found = vec![found.clone(), found.clone()].into();
                }
            }
            Self::Add { key, value: pick } => {
                let key = KEYS[key % KEYS.len()];
                if let Some(fields) = config.as_object_mut() {
                    fields.insert(key.to_owned(), value(*pick));
                }
            }
        }
    }
}

/// Keys of plugins that the base configuration may not have.
const KEYS: &[&str] = &[
    "dns",
    "args",
    "runtimeConfig",
    "capabilities",
    "cniVersion",
    "cniVersions",
    "prevResult",
    "disableCheck",
    "disableGC",
    "ipam",
    "ipMasq",
    "ipMasqBackend",
    "mtu",
    "vlan",
    "vlanTrunk",
    "mac",
    "master",
    "mode",
    "backend",
    "snat",
    "sysctl",
    "promisc",
    "isDefaultGateway",
    "forceAddress",
    "hairpinMode",
    "promiscMode",
    "linkInContainer",
    "delegate",
    "dataDir",
    "subnetFile",
    "cni.dev/valid-attachments",
    "cni.dev/attachments",
    "",
];

/// Every value inside `value`, counted in order; the whole itself is not.
fn nth(value: &mut Value, number: usize) -> Option<&mut Value> {
    let count = count(value);
    (count > 0)
        .then(|| walk(value, &mut (number % count)))
        .flatten()
}

fn count(value: &Value) -> usize {
    match value {
        Value::Object(fields) => fields.values().map(|v| 1 + count(v)).sum(),
        Value::Array(items) => items.iter().map(|v| 1 + count(v)).sum(),
        _ => 0,
    }
}

fn walk<'a>(value: &'a mut Value, left: &mut usize) -> Option<&'a mut Value> {
    let inner: Vec<&mut Value> = match value {
        Value::Object(fields) => fields.values_mut().collect(),
        Value::Array(items) => items.iter_mut().collect(),
        _ => return None,
    };
    for one in inner {
        if *left == 0 {
            return Some(one);
        }
        *left -= 1;
        let below = count(one);
        if *left < below {
            return walk(one, left);
        }
        *left -= below;
    }
    None
}

/// Removes a field of the outermost or of an inner object.
fn remove_nth(config: &mut Value, number: usize) {
    let inner = match nth(config, number) {
        Some(Value::Object(fields)) if !fields.is_empty() => fields,
        _ => match config.as_object_mut() {
            Some(fields) => fields,
            None => return,
        },
    };
    let keys: Vec<String> = Map::keys(inner).cloned().collect();
    if let Some(key) = keys.get(number % keys.len().max(1)) {
        inner.remove(key);
    }
}

fn collect_folders(value: &Value, folders: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields {
                if let (true, Some(text)) = (key.ends_with("Dir"), inner.as_str()) {
                    folders.push(text.to_owned());
                }
                collect_folders(inner, folders);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_folders(item, folders)),
        _ => {}
    }
}

// === impl Damage ===

impl Damage {
    fn apply(&self, mut text: Vec<u8>) -> Vec<u8> {
        let at = |number: usize, text: &[u8]| number % text.len().max(1);
        match self {
            Self::Cut(number) => text.truncate(at(*number, &text)),
            Self::Byte(number, byte) => {
                let place = at(*number, &text);
                text[place] = *byte;
            }
            Self::Insert(number, bytes) => {
                let place = at(*number, &text);
                text.splice(place..place, bytes.iter().copied());
            }
            Self::SecondName(pick) => {
                let name = serde_json::to_string(TEXTS[pick % TEXTS.len()]).unwrap();
                let end = text.len() - 1;
                text.splice(end..end, format!(",\"name\":{name}").into_bytes());
            }
            Self::Nested(depth) => {
                let end = text.len() - 1;
                let deep = format!(",\"deep\":{}{}", "[".repeat(*depth), "]".repeat(*depth));
                text.splice(end..end, deep.into_bytes());
            }
            Self::Random(bytes) => text.clone_from(bytes),
        }
        text
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.env {
            write!(f, "{name}={:?} ", String::from_utf8_lossy(value))?;
        }
        let stdin = String::from_utf8_lossy(&self.stdin);
        let short: String = stdin.chars().take(3000).collect();
        write!(f, "{} <<< {short}", self.plugin)
    }
}
