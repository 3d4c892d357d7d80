//! A service manager's end of sd_notify(3): what an agent tells it.

use std::cell::RefCell;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Listens as long as it lives.
pub struct Manager {
    socket: UnixDatagram,
    told: RefCell<Vec<String>>,
}

impl Manager {
    /// Listens here; what is here already makes room.
    pub fn bind(path: &Path) -> Self {
        let _ = fs::remove_file(path);
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, told: RefCell::default() }
    }

    /// Every line so far, as `READY=1`.
    pub fn told(&self) -> Vec<String> {
        let mut told = self.told.borrow_mut();
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            told.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
        }
        told.clone()
    }
}
