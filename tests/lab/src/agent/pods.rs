//! The watch of this node's pods: one worker each, and the end of what belongs to none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::watch;

use super::checkpoint::{AttachmentRecord, PodDir, SandboxRecord};
use super::worker::{Update, Worker};
use super::{Context, sandbox};

type Workers = BTreeMap<String, watch::Sender<Update>>;

/// Runs the node's pods for ever.
///
/// # Errors
/// When the watch ends.
pub(super) async fn run(context: &Arc<Context>) -> Result<()> {
    context
        .services
        .wait_until_ready()
        .await
        .context("list the Services")?;
    let selector = format!("spec.nodeName={}", context.node_name);
    let config = watcher::Config::default().fields(&selector);
    let stream = watcher(Api::<Pod>::all(context.client.clone()), config).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut workers = Workers::new();
    let mut listed = Vec::new();
    let mut cleaned = false;
    loop {
        let event = match stream.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => bail!("the watch of pods ended"),
            Err(error) => {
                tracing::warn!(%error, "watch of pods interrupted");
                continue;
            }
        };
        match event {
            watcher::Event::Init => listed.clear(),
            watcher::Event::InitApply(pod) => {
                listed.push(pod.uid().unwrap_or_default());
                apply(context, &mut workers, pod);
            }
            watcher::Event::InitDone => {
                forget(&workers, |uid| listed.iter().any(|listed| listed == uid));
                if !cleaned {
                    clean_leftovers(context, &listed).await;
                    cleaned = true;
                }
            }
            watcher::Event::Apply(pod) => apply(context, &mut workers, pod),
            watcher::Event::Delete(pod) => {
                let gone = pod.uid().unwrap_or_default();
                forget(&workers, |uid| uid != gone);
            }
        }
        workers.retain(|_, sender| !sender.is_closed());
    }
}

fn apply(context: &Arc<Context>, workers: &mut Workers, pod: Pod) {
    let uid = pod.uid().unwrap_or_default();
    let name = pod.name_any();
    let update = Update {
        pod: Arc::new(pod),
        gone: false,
    };
    if let Some(sender) = workers.get(&uid)
        && !sender.is_closed()
    {
        sender.send_replace(update);
        return;
    }
    let (sender, receiver) = watch::channel(update);
    let worker = PodDir::new(&context.pods_dir, &uid)
        .and_then(|dir| Worker::new(context.clone(), dir, receiver));
    match worker {
        Ok(worker) => {
            tracing::info!(pod = %name, %uid, "pod begins");
            tokio::spawn(worker.run());
            workers.insert(uid, sender);
        }
        Err(error) => tracing::error!(pod = %name, %uid, "pod not run: {error:#}"),
    }
}

/// Tells the workers of pods that are not kept that their object no longer exists.
fn forget(workers: &Workers, kept: impl Fn(&str) -> bool) {
    for (_, sender) in workers.iter().filter(|(uid, _)| !kept(uid)) {
        sender.send_modify(|update| update.gone = true);
    }
}

/// Ends what an earlier node agent left of pods that no longer exist, and lets plugins collect garbage.
async fn clean_leftovers(context: &Arc<Context>, listed: &[String]) {
    let records = match PodDir::all(&context.pods_dir) {
        Ok(records) => records,
        Err(error) => return tracing::error!("leftovers not read: {error:#}"),
    };
    let mut valid = Vec::new();
    for (dir, record) in records {
        let keep = record
            .as_ref()
            .is_ok_and(|record| listed.contains(&record.uid));
        match record {
            Ok(record) if keep => valid.extend(record.attachments),
            record => {
                if let Err(error) = clean_one(context, &dir, record).await {
                    tracing::warn!(dir = %dir.path().display(), "leftover stays: {error:#}");
                }
            }
        }
    }
    if let Err(error) = collect_garbage(context, valid).await {
        tracing::warn!("CNI GC: {error:#}");
    }
}

async fn clean_one(context: &Context, dir: &PodDir, record: Result<SandboxRecord>) -> Result<()> {
    let uid = dir
        .path()
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let cgroup = context.cgroup.child("kubepods").child(&format!("pod{uid}"));
    tokio::task::spawn_blocking(move || cgroup.destroy())
        .await
        .context("wait")??;
    if let Ok(record) = record {
        sandbox::remove(&context.cni, dir, &record).await?;
    }
    dir.remove()
}

async fn collect_garbage(context: &Context, valid: Vec<AttachmentRecord>) -> Result<()> {
    let Ok(network) = context.cni.network() else {
        return Ok(());
    };
    let valid = valid
        .into_iter()
        .filter(|attached| attached.network.name == network.name)
        .map(|attached| attached.attachment)
        .collect::<Vec<_>>();
    tokio::time::timeout(Duration::from_secs(60), context.cni.gc(&network, &valid))
        .await
        .context("no end within 60 s")?
}
