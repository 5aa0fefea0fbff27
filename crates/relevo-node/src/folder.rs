//! The folder of a node's state: its store, and what those on this machine need to reach it.

use std::{
    fs::{self, OpenOptions, TryLockError},
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// The name of the file with the operator's token.
pub const OPERATOR_TOKEN: &str = "operator.token";
/// The name of the file with the address of a node that runs.
pub const ADDRESS: &str = "address";
/// The name of the file that a process locks which has the store.
pub const LOCK: &str = "node.lock";
/// What every token begins with, so that a token that got loose can be found.
pub const TOKEN_PREFIX: &str = "rvt_";

/// The folder of a node's state.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder, which is made for its owner alone if there is none.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Folder(path.to_owned()))
    }

    /// The folder, which may not be there.
    pub fn at(path: &Path) -> Self {
        Folder(path.to_owned())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The operator's token, made at the first start.
    pub fn operator_token(&self) -> io::Result<String> {
        let path = self.0.join(OPERATOR_TOKEN);
        match fs::read_to_string(&path) {
            Ok(token) => Ok(token.trim().to_owned()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let token = new_token();
                let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
                writeln!(file, "{token}")?;
                Ok(token)
            }
            Err(e) => Err(e),
        }
    }

    /// Say at which address the node can be reached, as long as it runs.
    pub fn tell_address(&self, address: SocketAddr) -> io::Result<()> {
        fs::write(self.0.join(ADDRESS), format!("{address}\n"))
    }

    /// The node runs no more.
    pub fn forget_address(&self) {
        let _ = fs::remove_file(self.0.join(ADDRESS));
    }

    /// At which address the node can be reached, if it runs. One that was killed has left its address behind, where anybody
    /// may listen by now.
    pub fn address(&self) -> Option<SocketAddr> {
        let told = fs::read_to_string(self.0.join(ADDRESS)).ok()?.trim().parse().ok();
        told.filter(|_| self.is_served())
    }

    /// Whether a process has the store.
    fn is_served(&self) -> bool {
        let lock = fs::File::open(self.0.join(LOCK));
        lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
    }
}

/// A new token: 256 bits of entropy.
pub fn new_token() -> String {
    let mut random = [0; 32];
    getrandom::fill(&mut random).expect("the operating system has entropy");
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{TOKEN_PREFIX}{digits}")
}
