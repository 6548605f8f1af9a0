//! Getting a lease, and looking after it.

use anyhow::Context as _;
use desired::lease::acquire::next;
use desired::lease::obstacle::standing;
use desired::lease::{Attributes, Claim, Holder, LeaseKey, Obstacle, Standing, Step};
use etcd_client::Client;

use super::client::described;
use super::hold::{self, Own};
use super::session::Session;
use crate::lease::Tenure;

/// What a step has come to.
enum Done {
    /// Look again: this node has a lease now, or has none any more.
    Again,
    /// Nothing to do, but perhaps to tell.
    Rest(Option<Obstacle>),
}

// === impl Session ===

impl Session<'_> {
    /// Takes steps until this node holds a lease that says how it is reached now, or has to wait.
    pub(super) async fn hold(&mut self, client: &mut Client) -> anyhow::Result<()> {
        if *self.leases.tenure.borrow() == Tenure::GivenBack {
            return Ok(());
        }
        let Some(lease) = self.leases.lease.borrow_and_update().clone() else {
            return Ok(());
        };
        let wanted = lease.announced.attributes();
        let obstacle = loop {
            let done = match self.state.own.clone() {
                Some(own) => self.check(client, own, &wanted).await?,
                // Another node was faster: the watch tells of it first.
                None if self.state.retry.is_some() => return Ok(()),
                None => self.acquire(client, &wanted).await?,
            };
            if let Done::Rest(obstacle) = done {
                break obstacle;
            }
        };
        if self.state.retry.is_none() || obstacle.is_some() {
            self.report(obstacle.map(|obstacle| obstacle.to_string()));
        }
        Ok(())
    }

    fn report(&self, obstacle: Option<String>) {
        self.leases.report.send_if_modified(|report| {
            let modified = report.obstacle != obstacle;
            if let Some(text) = obstacle.as_ref().filter(|_| modified) {
                tracing::warn!(obstacle = text, "this node holds no lease safely");
            }
            report.obstacle = obstacle;
            modified
        });
    }

    /// Whether the lease that this node holds is still its own and says what it should.
    async fn check(
        &mut self,
        client: &mut Client,
        own: Own,
        wanted: &Attributes,
    ) -> anyhow::Result<Done> {
        let key = own.key;
        let found = self.state.table.get(key);
        let seen = found.map(|entry| (entry.created, entry.attributes.as_ref()));
        let ours = Holder::of(Some(&own.attributes));
        let written = self.state.written.iter();
        let all_ours: Vec<&Attributes> = written.chain([&own.attributes, wanted]).collect();
        match standing(&all_ours, own.created, seen) {
            Standing::Ours => {}
            Standing::Gone => {
                tracing::warn!(lease = %key, "this node's lease was deleted; it is taken again if it is free");
                self.lose();
                return Ok(Done::Again);
            }
            Standing::Taken(theirs) => {
                tracing::warn!(lease = %key, %ours, %theirs, "this node's lease has expired and is another's; a new one is taken");
                self.lose();
                return Ok(Done::Again);
            }
            Standing::Overwritten(theirs) => {
                // The etcd lease that is kept alive is not the one that this key hangs on.
                self.keeper.keep(0, None);
                self.leases.lasts(None);
                return Ok(Done::Rest(Some(Obstacle::Overwritten {
                    key,
                    ours,
                    theirs,
                })));
            }
        }
        // Somebody may have written the same, as flannel does to renew: that is the lease now.
        let own = found.map_or(own.clone(), |entry| Own {
            attributes: entry.attributes.clone().unwrap_or(own.attributes),
            created: entry.created,
            modified: entry.modified,
            etcd_lease: entry.etcd_lease,
            ..own
        });
        let overlap = self.overlap(&own);
        self.keeper.keep(own.etcd_lease, None);
        if own.etcd_lease == 0 {
            self.leases.lasts(None);
        }
        self.state.own = Some(own.clone());
        if let Some((obstacle, made_before)) = overlap {
            if !(own.is_new && made_before) {
                self.update(client, &own, wanted).await?;
                return Ok(Done::Rest(Some(obstacle)));
            }
            tracing::warn!(%obstacle, "the lease that this node has just made is given up");
            return self.give_up(client, key, own.modified).await;
        }
        self.update(client, &own, wanted).await?;
        Ok(Done::Rest(None))
    }

    /// Another lease with addresses of this node's, and whether it was there before.
    fn overlap(&self, own: &Own) -> Option<(Obstacle, bool)> {
        let (other, entry) = self.state.table.overlapping(own.key)?;
        let obstacle = Obstacle::Overlap {
            key: own.key,
            ours: Holder::of(Some(&own.attributes)),
            other,
            theirs: Holder::of(entry.attributes.as_ref()),
        };
        Some((obstacle, entry.created < own.created))
    }

    /// Makes the lease say how this node is reached now.
    async fn update(
        &mut self,
        client: &mut Client,
        own: &Own,
        wanted: &Attributes,
    ) -> anyhow::Result<()> {
        if own.attributes == *wanted || self.state.retry.is_some() {
            return Ok(());
        }
        match hold::write(client, &self.prefix, own, wanted).await? {
            Some(written) => {
                tracing::info!(lease = %written.key, "this node's lease says how it is reached now");
                self.written(written);
            }
            None => self.state.lost_race(),
        }
        Ok(())
    }

    async fn acquire(&mut self, client: &mut Client, wanted: &Attributes) -> anyhow::Result<Done> {
        let step = self.next(wanted);
        let own = match step {
            Step::Wait(obstacle) => return Ok(Done::Rest(Some(obstacle))),
            Step::Discard { key, revision } => {
                tracing::info!(lease = %key, "this node's lease is of another network and is given up");
                return self.give_up(client, key, revision).await;
            }
            Step::Create(key) => self.create(client, key, wanted).await?,
            Step::Keep { key, .. } => self.take_over(client, key, wanted).await?,
        };
        let Some(own) = own else {
            self.state.lost_race();
            return Ok(Done::Rest(None));
        };
        tracing::info!(lease = %own.key, "this node holds a lease");
        self.leases.previous = Some(own.key);
        self.written(own);
        Ok(Done::Again)
    }

    fn next(&mut self, wanted: &Attributes) -> Step {
        let held = self.state.table.held();
        let (macs, avoid) = (wanted.macs(), self.state.forgotten.clone());
        let mut barred = self.state.table.resembled();
        loop {
            let claim = Claim {
                public_ip: wanted.public_ip,
                public_ipv6: wanted.public_ipv6,
                macs: &macs,
                previous: self.leases.previous,
                is_inherited: self.state.written.is_empty(),
                pools: &self.leases.pools,
                avoid: &avoid,
                barred: &barred,
            };
            match next(&held, &claim, &mut |many| self.state.choose(many)) {
                Step::Create(key) if self.state.table.is_barred(key) => {
                    barred.push(key.v4.into());
                }
                step => return step,
            }
        }
    }

    async fn create(
        &mut self,
        client: &mut Client,
        key: LeaseKey,
        wanted: &Attributes,
    ) -> anyhow::Result<Option<Own>> {
        let (etcd_lease, ttl) = self.grant(client).await?;
        let known = self.state.revision;
        let created = hold::create(client, &self.prefix, key, wanted, etcd_lease, known).await?;
        if created.is_none() {
            // The next attempt needs one too.
            self.state.granted = Some(etcd_lease);
            return Ok(None);
        }
        self.keeper.keep(etcd_lease, ttl);
        self.leases.lasts(ttl);
        let is_new = self.leases.previous != Some(key);
        Ok(created.map(|own| Own { is_new, ..own }))
    }

    /// An etcd lease, and the time it has if that is known: one that was granted for a race that was
    /// lost may be old by now.
    async fn grant(&mut self, client: &mut Client) -> anyhow::Result<(i64, Option<i64>)> {
        if let Some(id) = self.state.granted.take() {
            return Ok((id, None));
        }
        let ttl = self.leases.ttl;
        let granted = client.lease_grant(ttl, None).await;
        let granted = granted
            .map_err(|error| described(&error))
            .context("grant a lease")?;
        Ok((granted.id(), Some(ttl)))
    }

    /// Gives the etcd lease a sign of life. If there is none any more, the key is gone with it, as
    /// the watch will tell; a key that stays all the same is hung on a new one.
    pub(super) async fn beat(&mut self, client: &mut Client) -> anyhow::Result<()> {
        if let Some(ttl) = self.keeper.beat(client).await? {
            self.leases.lasts(Some(ttl));
            return Ok(());
        }
        let Some(own) = self.state.own.clone() else {
            return Ok(());
        };
        tracing::warn!(lease = %own.key, "the etcd lease of this node's lease is gone");
        let (etcd_lease, ttl) = self.grant(client).await?;
        let moved = Own {
            etcd_lease,
            ..own.clone()
        };
        match hold::write(client, &self.prefix, &moved, &own.attributes).await? {
            Some(written) => {
                self.keeper.keep(etcd_lease, ttl);
                self.leases.lasts(ttl);
                self.written(written);
            }
            None => self.state.granted = Some(etcd_lease),
        }
        Ok(())
    }

    /// A lease that is this node's already, from an earlier run or from flannel.
    async fn take_over(
        &mut self,
        client: &mut Client,
        key: LeaseKey,
        wanted: &Attributes,
    ) -> anyhow::Result<Option<Own>> {
        let Some(entry) = self.state.table.get(key) else {
            return Ok(None);
        };
        let own = Own {
            key,
            attributes: entry.attributes.clone().unwrap_or_else(|| wanted.clone()),
            created: entry.created,
            modified: entry.modified,
            etcd_lease: entry.etcd_lease,
            is_new: false,
        };
        if entry.attributes.as_ref() == Some(wanted) {
            return Ok(Some(own));
        }
        hold::write(client, &self.prefix, &own, wanted).await
    }

    /// Deletes a lease of this node, if it is as it was seen.
    async fn give_up(
        &mut self,
        client: &mut Client,
        key: LeaseKey,
        modified: i64,
    ) -> anyhow::Result<Done> {
        let Some(revision) = hold::discard(client, &self.prefix, key, modified).await? else {
            self.state.lost_race();
            return Ok(Done::Rest(None));
        };
        let name = format!("{}{key}", self.prefix);
        self.state.table.delete(name.as_bytes(), revision);
        self.lose();
        self.leases.previous = self.leases.previous.filter(|previous| *previous != key);
        Ok(Done::Again)
    }

    fn lose(&mut self) {
        self.keeper.keep(0, None);
        self.leases.lasts(None);
        if let Some(key) = self.state.lose() {
            self.leases.previous = Some(key);
        }
    }
}
