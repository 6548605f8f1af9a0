//! A pod's sandbox: network, IPC and UTS namespaces held by bind mounts, attached by CNI.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, unshare};
use rand::Rng;
use serde_json::{Map, Value, json};

use k8s_openapi::api::core::v1::Pod;

use super::checkpoint::{AttachmentRecord, PodDir, SandboxRecord};
use super::cni::{self, Attachment, Cni};
use crate::enter::Place;
use crate::namespace::{bind, on_thread};

const KINDS: [&str; 3] = ["net", "ipc", "uts"];

/// 64 random hexadecimal digits, as runtimes name sandboxes and containers.
pub fn random_id() -> String {
    let mut rng = rand::rng();
    (0..64)
        .map(|_| char::from(b"0123456789abcdef"[rng.random_range(0..16)]))
        .collect()
}

/// The namespaces of the sandbox `id`; the network one is where runtimes put it.
pub fn place(id: &str) -> Place {
    Place {
        net: Some(path(id, "net")),
        ipc: Some(path(id, "ipc")),
        uts: Some(path(id, "uts")),
        ..Place::default()
    }
}

fn path(id: &str, kind: &str) -> PathBuf {
    match kind {
        "net" => Path::new("/run/netns").join(format!("cni-{id}")),
        _ => Path::new("/run/node-agent").join(kind).join(id),
    }
}

/// Makes the namespaces of the sandbox `id`, with `hostname` as the host name.
///
/// # Errors
/// When the kernel refuses.
pub fn create_namespaces(id: &str, hostname: &str) -> Result<()> {
    for kind in KINDS {
        let path = path(id, kind);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        }
        File::create_new(&path).with_context(|| format!("create {}", path.display()))?;
    }
    on_thread(|| {
        let flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
        unshare(flags).context("create the sandbox's namespaces")?;
        fs::write("/proc/sys/kernel/hostname", hostname).context("set the host name")?;
        for kind in KINDS {
            bind(
                &Path::new("/proc/thread-self/ns").join(kind),
                &path(id, kind),
            )?;
        }
        Ok(())
    })
}

/// Lets go of the namespaces of the sandbox `id`; those that are gone already are fine.
///
/// # Errors
/// When the kernel refuses.
pub fn remove_namespaces(id: &str) -> Result<()> {
    for kind in KINDS {
        let path = path(id, kind);
        match umount2(&path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(error) => return Err(error).with_context(|| format!("unmount {}", path.display())),
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes a pod's sandbox, recording each step in `dir` before it is taken.
///
/// # Errors
/// What went wrong; [`remove`] must then be called before another attempt.
pub async fn create(cni: &Cni, dir: &PodDir, pod: &Pod) -> Result<SandboxRecord> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let mut record = SandboxRecord {
        id: random_id(),
        uid: text(&pod.metadata.uid),
        namespace: text(&pod.metadata.namespace),
        name: text(&pod.metadata.name),
        host_network: spec.host_network.unwrap_or(false),
        attachments: Vec::new(),
        ready: false,
        addresses: Vec::new(),
    };
    dir.create()?;
    dir.set_sandbox(&record)?;
    if !record.host_network {
        let network = cni.network()?;
        let hostname = spec.hostname.clone().unwrap_or_else(|| record.name.clone());
        let id = record.id.clone();
        tokio::task::spawn_blocking(move || create_namespaces(&id, &hostname))
            .await
            .context("wait for the sandbox")??;
        let capabilities = port_mappings(pod);
        for (network, ifname) in [(cni::loopback(), "lo"), (network, "eth0")] {
            let attachment = Attachment {
                container_id: record.id.clone(),
                netns: path(&record.id, "net"),
                ifname: ifname.to_owned(),
                args: cni::pod_args(&record.namespace, &record.name, &record.uid, &record.id),
                capabilities: capabilities.clone(),
            };
            record.attachments.push(AttachmentRecord {
                network,
                attachment,
                result: None,
            });
            dir.set_sandbox(&record)?;
            attach_last(cni, &mut record).await?;
        }
    }
    record.ready = true;
    dir.set_sandbox(&record)?;
    Ok(record)
}

async fn attach_last(cni: &Cni, record: &mut SandboxRecord) -> Result<()> {
    let Some(last) = record.attachments.last_mut() else {
        return Ok(());
    };
    let result = cni.add(&last.network, &last.attachment).await?;
    if last.attachment.ifname != "lo" {
        record.addresses = cni::addresses(&result);
        if record.addresses.is_empty() {
            anyhow::bail!("CNI ADD gave the pod no address: {result}");
        }
    }
    last.result = Some(result);
    Ok(())
}

/// Undoes a sandbox: DEL in reverse, then the namespaces, then the records.
///
/// # Errors
/// When a plugin's DEL fails; the record stays, so that it is tried again.
pub async fn remove(cni: &Cni, dir: &PodDir, record: &SandboxRecord) -> Result<()> {
    for attached in record.attachments.iter().rev() {
        cni.del(
            &attached.network,
            &attached.attachment,
            attached.result.as_ref(),
        )
        .await?;
    }
    let id = record.id.clone();
    tokio::task::spawn_blocking(move || remove_namespaces(&id))
        .await
        .context("wait for the sandbox's end")??;
    Ok(
        fs::remove_file(dir.path().join("sandbox.json")).or_else(|error| {
            if error.kind() == ErrorKind::NotFound {
                Ok(())
            } else {
                Err(error)
            }
        })?,
    )
}

/// The portMappings capability of a pod's hostPorts.
fn port_mappings(pod: &Pod) -> Map<String, Value> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mappings = containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let host_port = port.host_port.filter(|port| *port > 0)?;
            Some(json!({
                "hostPort": host_port,
                "containerPort": port.container_port,
                "protocol": port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
                "hostIP": port.host_ip.as_deref().unwrap_or_default(),
            }))
        })
        .collect::<Vec<_>>();
    if mappings.is_empty() {
        return Map::new();
    }
    Map::from_iter([("portMappings".to_owned(), json!(mappings))])
}
