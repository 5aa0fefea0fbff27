//! A server of this machine alone, on a thread of its own, for as long as somebody holds it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    thread::JoinHandle,
};

use axum::Router;
use tokio::sync::oneshot;

/// A server on the loopback; it ends when it is dropped.
pub(crate) struct Loopback {
    address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Loopback {
    /// Serve on this port; with 0, on a free one.
    pub(crate) fn serve(port: u16, app: Router) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("it does not block");
                tokio::select! {
                    _ = axum::serve(listener, app) => {}
                    _ = ended => {}
                }
            });
        });
        Ok(Loopback { address, end: Some(end), thread: Some(thread) })
    }

    /// Where it serves.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        drop(self.end.take());
        // A thread that panicked has served nothing, which its test will have seen.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
