use std::collections::BTreeSet;
use std::sync::Mutex;

use desired::cluster::{Backend, Node, ThisNode};
use desired::lease::attributes::VxlanData;

use super::*;
use crate::store::{Change, Store};

/// A lease store that writes what it publishes back into the snapshot, as the watch would.
struct Echo {
    store: Arc<Store>,
    refuse: Arc<Mutex<u32>>,
    published: watch::Sender<Vec<Lease>>,
}

impl LeaseStore for Echo {
    async fn publish(&mut self, lease: &Lease) -> anyhow::Result<()> {
        let mut refuse = self.refuse.lock().unwrap();
        if *refuse > 0 {
            *refuse -= 1;
            anyhow::bail!("refused");
        }
        let mut node = Node::new("n1".parse().unwrap());
        node.announced = Some(lease.announced.clone());
        self.published.send_modify(|all| all.push(lease.clone()));
        self.store.change(vec![Change::Apply(node)]);
        Ok(())
    }

    async fn withdraw(&mut self) -> anyhow::Result<()> {
        self.store
            .change(vec![Change::Apply(Node::new("n1".parse().unwrap()))]);
        Ok(())
    }

    fn shows(&self, cluster: &Cluster, lease: &Lease) -> bool {
        announced(cluster).as_ref() == Some(&lease.announced)
    }
}

fn lease(mac: &str) -> Lease {
    let data = VxlanData {
        vni: 1.try_into().unwrap(),
        vtep_mac: mac.parse().unwrap(),
    };
    Lease {
        subnets: vec!["10.244.3.0/24".parse().unwrap()],
        announced: Announced {
            public_ip: "172.30.0.5".parse().ok(),
            public_ipv6: None,
            backend: Backend::Vxlan {
                v4: Some(data),
                v6: None,
            },
        },
        overlay: Overlay::default(),
        mtu: 1450.try_into().unwrap(),
    }
}

#[tokio::test]
async fn a_lease_is_published_until_it_is_shown_and_again_when_it_is_lost() {
    let this_node = ThisNode {
        name: "n1".parse().unwrap(),
        addresses: BTreeSet::new(),
    };
    let store = Arc::new(Store::new(Cluster::new(this_node, Vec::new())));
    let (published, mut seen) = watch::channel(Vec::new());
    let refuse = Arc::new(Mutex::new(1));
    let echo = Echo {
        store: store.clone(),
        refuse: refuse.clone(),
        published,
    };
    let (lease_in, lease_out) = watch::channel(None);
    let stop = CancellationToken::new();
    let tenure = watch::Sender::new(Tenure::Wanted);
    let snapshots = store.subscribe();
    let task = tokio::spawn(keep(
        echo,
        lease_out,
        snapshots,
        tenure.clone(),
        stop.clone(),
    ));

    let first = lease("02:00:00:00:00:01");
    lease_in.send(Some(first.clone())).unwrap();
    seen.wait_for(|all| *all == [first.clone()]).await.unwrap();
    assert_eq!(*refuse.lock().unwrap(), 0);

    // Somebody edits the Node object, or it is made anew.
    store.change(vec![Change::Apply(Node::new("n1".parse().unwrap()))]);
    seen.wait_for(|all| all.len() == 2).await.unwrap();

    let second = lease("02:00:00:00:00:02");
    lease_in.send(Some(second.clone())).unwrap();
    seen.wait_for(|all| all.last() == Some(&second))
        .await
        .unwrap();
    assert_eq!(seen.borrow().len(), 3);

    tenure.send_replace(Tenure::GivingBack);
    task.await.unwrap();
    assert_eq!(*tenure.borrow(), Tenure::GivenBack);
    assert_eq!(announced(&store.snapshot()), None);
    assert_eq!(seen.borrow().len(), 3, "it is not published again");
}
