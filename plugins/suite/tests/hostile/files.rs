//! An overlay as root, in which every new file is seen, and the machine keeps none.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chroot, fchdir};

/// The overlay as root; dropping it goes back to the machine's.
pub(crate) struct Root(File);

impl Root {
    /// Only the calling thread is moved.
    pub(crate) fn new(visible: &[&Path]) -> nix::Result<Self> {
        let machine = File::open("/").unwrap();
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS)?;
        let none = None::<&str>;
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some("tmpfs"), "/mnt", Some("tmpfs"), MsFlags::empty(), none)?;
        for part in ["upper", "aside", "merged"] {
            fs::create_dir(Path::new("/mnt").join(part)).unwrap();
        }
        let options = "lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/aside";
        mount(
            Some("overlay"),
            "/mnt/merged",
            Some("overlay"),
            MsFlags::empty(),
            Some(options),
        )?;
        for part in ["/proc", "/sys", "/dev"]
            .iter()
            .map(Path::new)
            .chain(visible.iter().copied())
        {
            let inside = Path::new("/mnt/merged").join(part.strip_prefix("/").unwrap());
            fs::create_dir_all(&inside).unwrap();
            mount(Some(part), &inside, none, bind, none)?;
        }
        mount(Some("/mnt/upper"), "/mnt/merged/mnt", none, bind, none)?;
        chroot("/mnt/merged")?;
        std::env::set_current_dir("/").unwrap();
        Ok(Self(machine))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        fchdir(&self.0).expect("go back to the machine's root");
        chroot(".").expect("go back to the machine's root");
    }
}

/// The files of the overlay that are not the machine's, and those of `folder`, which is.
pub(crate) fn list(folder: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    list_below(Path::new("/mnt"), Path::new("/"), &mut files);
    list_below(folder, folder, &mut files);
    files
}

fn list_below(folder: &Path, shown: &Path, files: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let shown = shown.join(entry.file_name());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list_below(&entry.path(), &shown, files);
        }
        files.insert(shown);
    }
}

/// The path without `.` and `..`; `None` above the root.
pub(crate) fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    // The root itself would allow everything.
    (plain != Path::new("/")).then_some(plain)
}
