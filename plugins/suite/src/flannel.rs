//! `flannel`: reads the subnet file of `flanneld` (or `towlined`) and delegates to `bridge`, or
//! another plugin, with host-local addresses.
//!
//! The delegate's configuration is kept from ADD to DEL by container and interface. Files of
//! flannel's own plugin, which are kept by container only, are understood and removed.

pub mod config;
pub mod plan;

use hostnet::Netlink;
use protocol::{AddResult, Attachment, Command, Error, Plugin, Request};

use crate::delegate::{Delegate, forget, with_undoing};
use crate::pod;
use crate::saved::{Owner, Saved};
use crate::subnet::Subnet;

/// The plugin.
#[derive(Debug)]
pub struct Flannel;

impl Plugin for Flannel {
    fn name(&self) -> &'static str {
        "flannel"
    }

    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        let config = config::read(request)?;
        let netns = pod::open(request)?;
        let mut inside = Netlink::open_in(&netns).map_err(|error| pod::kernel(&error))?;
        pod::refuse_taken(request, &mut inside)?;
        let subnet = Subnet::read(&config.subnet_file)?;
        let delegate = plan::delegate(request, &config, &subnet)?;
        let (saved, attachment) = (Saved::new(&config.data_dir), request.attachment());
        saved.write(&attachment, &delegate)?;
        delegate.add(request).map_err(|error| {
            let undone = delegate.call(request, Command::Del);
            with_undoing(error, [forget(&saved, &attachment, undone)])
        })
    }

    fn delete(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let (saved, attachment) = (Saved::new(&config.data_dir), request.attachment());
        if let Some((owner, delegate)) = find(&saved, request)? {
            delegate.replay_del(request)?;
            return saved.remove_file(&owner);
        }
        let subnet = Subnet::read(&config.subnet_file).ok();
        let freed = plan::broadest(request, &config, subnet.as_ref()).call(request, Command::Del);
        match (freed, subnet) {
            // Nothing says that there is anything to free, so nothing may block the pod's end.
            (Err(error), None) => eprintln!("flannel: nothing was saved, no subnet file: {error}"),
            (outcome, _) => outcome?,
        }
        saved.remove(&attachment)
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        match find(&Saved::new(&config.data_dir), request)? {
            Some((_, delegate)) => delegate.replay_check(request),
            None => Err(unknown(request)),
        }
    }

    fn gc(&self, request: &Request<'_>, valid: Option<&[Attachment]>) -> Result<(), Error> {
        let config = config::read(request)?;
        let swept = match valid {
            Some(valid) => Saved::new(&config.data_dir).sweep(request, valid, &|_| Ok(())),
            None => Ok(()),
        };
        let subnet = Subnet::read(&config.subnet_file).ok();
        let delegate = plan::broadest(request, &config, subnet.as_ref());
        delegate.call(request, Command::Gc).and(swept)
    }

    fn status(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let subnet = Subnet::read(&config.subnet_file);
        let delegate = subnet.and_then(|subnet| plan::delegate(request, &config, &subnet));
        let unavailable = |error: Error| Error::not_available(error.msg).details(error.details);
        delegate
            .map_err(unavailable)?
            .call(request, Command::Status)
    }
}

/// What was saved for the request's attachment: by this plugin, or by flannel's own for the same
/// container and network.
fn find(saved: &Saved, request: &Request<'_>) -> Result<Option<(Owner, Delegate)>, Error> {
    let attachment = request.attachment();
    if let Some(delegate) = saved.read(&attachment)? {
        return Ok(Some((Owner::Attachment(attachment), delegate)));
    }
    let old = saved.read_of_container(&attachment)?;
    let old = old.filter(|delegate| delegate.network() == request.network);
    Ok(old.map(|delegate| (Owner::Container(attachment.container_id), delegate)))
}

fn unknown(request: &Request<'_>) -> Error {
    Error::unknown_container(format!(
        "interface {} of container {} was not attached by flannel, or its saved configuration in \
         dataDir is lost",
        request.ifname, request.container_id
    ))
}
