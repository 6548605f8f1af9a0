//! Finding a network by its name in a folder of configurations, as libcni does.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::runtime::list::NetworkList;

/// The network called `name` in `folder`: lists (`*.conflist`) before single plugins (`*.conf`,
/// `*.json`), each by file name. Unless the list says otherwise, `folder/NAME/*.conf` are plugins
/// after its own.
///
/// # Errors
/// Code 7 when there is no such network; files that cannot be understood are named then. Code 5
/// when the folder cannot be read.
pub fn load(folder: &Path, name: &str) -> Result<NetworkList, Error> {
    let mut unreadable = Vec::new();
    for (endings, single) in [(&["conflist"][..], false), (&["conf", "json"], true)] {
        for file in files(folder, endings)? {
            let list = read(&file).and_then(|text| match single {
                true => NetworkList::parse_single(&text),
                false => NetworkList::parse(&text),
            });
            match list {
                Ok(list) if list.name == name => return with_folder(list, folder, single),
                Ok(_) => {}
                Err(error) => unreadable.push(format!("{}: {error}", file.display())),
            }
        }
    }
    let msg = format!("there is no network {name:?} in {}", folder.display());
    Err(Error::config(msg).details(unreadable.join("; ")))
}

fn with_folder(mut list: NetworkList, folder: &Path, single: bool) -> Result<NetworkList, Error> {
    if !single && !list.only_inlined {
        for file in files(&folder.join(&list.name), &["conf"])? {
            let text = read(&file)?;
            list.push(&text).map_err(|mut error| {
                error.msg = format!("{}: {}", file.display(), error.msg);
                error
            })?;
        }
    }
    if list.plugins.is_empty() {
        let (name, folder) = (&list.name, folder.display());
        return Err(Error::config(format!(
            "network {name} has no plugins, nor are there any in {folder}/{name}/*.conf"
        )));
    }
    Ok(list)
}

/// Files with one of these endings, sorted. A folder that is not there has none.
fn files(folder: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, Error> {
    let failed = |error| Error::io(format!("cannot read {}", folder.display())).details(error);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if ending.is_some_and(|ending| endings.contains(&ending)) && !path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    fs::read(file)
        .map_err(|error| Error::io(format!("cannot read {}", file.display())).details(error))
}
