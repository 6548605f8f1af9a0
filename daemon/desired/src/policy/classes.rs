//! Node-local classes: peers about which this node's policies say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ebpf_shared::policy::{CLASS_FIRST, CLASS_NODE, CLASS_WORLD};
use ipnetwork::IpNetwork;

use crate::cluster::{Cluster, Pod};
use crate::labels::Labels;
use crate::names::{NamespaceName, Protocol};
use crate::policy::peers::{Vocabulary, Word};
use crate::stable_id::{ContentHash, assign};

/// Everything that this node's policies can tell of a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClassContent {
    /// Whether it is this node.
    pub(crate) node: bool,
    /// The sets of pods and the blocks it belongs to.
    pub(crate) atoms: BTreeSet<Word>,
    /// The numbers of the named egress ports it has.
    pub(crate) ports: BTreeMap<Word, BTreeSet<u16>>,
}

impl ClassContent {
    fn hash(&self, vocabulary: &Vocabulary, attempt: u64) -> u32 {
        let mut hash = ContentHash::new("class")
            .number(attempt)
            .number(self.node.into());
        for &word in &self.atoms {
            hash = hash.part(vocabulary.atom_text(word).as_bytes());
        }
        for (&word, numbers) in &self.ports {
            hash = hash.part(vocabulary.port_text(word).as_bytes());
            for &number in numbers {
                hash = hash.number(number.into());
            }
        }
        hash.finish()
    }
}

/// Which class each address and prefix has, and what the classes mean.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    pub(crate) addresses: BTreeMap<IpAddr, u32>,
    pub(crate) prefixes: BTreeMap<IpNetwork, u32>,
    pub(crate) contents: BTreeMap<u32, ClassContent>,
}

impl Classes {
    /// Classifies every pod, this node, and every prefix that a block mentions.
    ///
    /// An address without an entry has the class of its longest prefix, so a pod of which only
    /// blocks can tell something needs none. A prefix' class already says everything that nested
    /// blocks and exceptions around it say.
    pub(crate) fn new(cluster: &Cluster, vocabulary: &Vocabulary) -> Self {
        let blocks_of = |address: IpAddr| -> BTreeSet<Word> {
            let blocks = vocabulary
                .blocks()
                .filter(|(_, block)| block.contains(address));
            blocks.map(|(word, _)| word).collect()
        };
        let mut addresses: BTreeMap<IpAddr, ClassContent> = cluster
            .own_addresses()
            .into_iter()
            .map(|address| {
                let atoms = blocks_of(address);
                (
                    address,
                    ClassContent {
                        node: true,
                        atoms,
                        ..ClassContent::default()
                    },
                )
            })
            .collect();
        let mut pods = PodClassifier {
            cluster,
            vocabulary,
            known: BTreeMap::new(),
        };
        for (address, pod) in cluster.pods_by_address() {
            let mut content = pods.content(pod).clone();
            if content == ClassContent::default() {
                addresses.remove(&address);
            } else {
                content.atoms.extend(blocks_of(address));
                addresses.insert(address, content);
            }
        }
        let boundaries: BTreeSet<_> = vocabulary
            .blocks()
            .flat_map(|(_, block)| block.boundaries())
            .collect();
        let prefixes = boundaries.into_iter().map(|prefix| {
            let blocks = vocabulary
                .blocks()
                .filter(|(_, block)| block.contains_prefix(prefix));
            let atoms = blocks.map(|(word, _)| word).collect();
            (
                prefix,
                ClassContent {
                    atoms,
                    ..ClassContent::default()
                },
            )
        });
        Self::numbered(&addresses, &prefixes.collect(), vocabulary)
    }

    fn numbered(
        addresses: &BTreeMap<IpAddr, ClassContent>,
        prefixes: &BTreeMap<IpNetwork, ClassContent>,
        vocabulary: &Vocabulary,
    ) -> Self {
        let world = ClassContent::default();
        let node = ClassContent {
            node: true,
            ..ClassContent::default()
        };
        let mut distinct: BTreeSet<_> = addresses
            .values()
            .chain(prefixes.values())
            .cloned()
            .collect();
        distinct.remove(&world);
        distinct.remove(&node);
        let mut ids = assign(distinct, CLASS_FIRST, |content, attempt| {
            content.hash(vocabulary, attempt)
        });
        ids.insert(world, CLASS_WORLD);
        ids.insert(node, CLASS_NODE);
        let id = |content: &ClassContent| ids.get(content).copied().unwrap_or(CLASS_WORLD);
        Self {
            addresses: addresses
                .iter()
                .map(|(key, content)| (*key, id(content)))
                .collect(),
            prefixes: prefixes
                .iter()
                .map(|(key, content)| (*key, id(content)))
                .collect(),
            contents: ids.into_iter().map(|(content, id)| (id, content)).collect(),
        }
    }
}

/// Pods of one namespace with the same labels and named ports are the same to every policy.
struct PodClassifier<'a> {
    cluster: &'a Cluster,
    vocabulary: &'a Vocabulary,
    known: BTreeMap<Alike<'a>, ClassContent>,
}

type Alike<'a> = (&'a NamespaceName, &'a Labels, Vec<(&'a str, Protocol, u16)>);

impl<'a> PodClassifier<'a> {
    fn content(&mut self, pod: &'a Pod) -> &ClassContent {
        let named = pod
            .ports
            .iter()
            .filter_map(|port| Some((port.name.as_deref()?, port.protocol, port.number.get())));
        let named: Vec<_> = named
            .filter(|(name, protocol, _)| self.vocabulary.port_word(name, *protocol).is_some())
            .collect();
        let alike = (&pod.name.namespace, &pod.labels, named);
        let (cluster, vocabulary) = (self.cluster, self.vocabulary);
        self.known.entry(alike).or_insert_with(|| {
            let sets = vocabulary.pod_sets();
            let of_pod = sets.filter(|(_, set)| set.contains(pod, &cluster.namespaces));
            let ports = vocabulary.ports().filter_map(|(word, (name, protocol))| {
                let numbers: BTreeSet<_> = pod
                    .named_port(name, *protocol)
                    .map(|number| number.get())
                    .collect();
                (!numbers.is_empty()).then_some((word, numbers))
            });
            ClassContent {
                node: false,
                atoms: of_pod.map(|(word, _)| word).collect(),
                ports: ports.collect(),
            }
        })
    }
}
