//! How connections are accepted: as many as there may be, and over TLS with whatever certificate the client shows.

use std::{fs, io, path::Path, sync::Arc};

use axum::{Extension, middleware::AddExtension};
use axum_server::{
    accept::Accept,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use futures_util::future::BoxFuture;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tower_layer::Layer;

use crate::transport::a2a::{Certificate, Shown};

/// What a connection is read from and written to.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Accepts as many connections as there may be, each counted until its service is dropped; more are closed. Over TLS, the
/// certificate that the client has shown is put beside its requests.
#[derive(Clone)]
pub(super) struct Entrance {
    places: Arc<Semaphore>,
    tls: Option<RustlsAcceptor>,
}

impl Entrance {
    pub(super) fn new(most: usize, tls: Option<Tls>) -> Self {
        Entrance {
            places: Arc::new(Semaphore::new(most)),
            tls: tls.map(|Tls(config)| RustlsAcceptor::new(config)),
        }
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for Entrance {
    type Stream = Box<dyn Stream>;
    type Service = AddExtension<AddExtension<S, Arc<OwnedSemaphorePermit>>, Shown>;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let (taken, tls) = (Arc::clone(&self.places).try_acquire_owned(), self.tls.clone());
        Box::pin(async move {
            let service = Extension(Arc::new(taken.map_err(io::Error::other)?)).layer(service);
            stream.set_nodelay(true)?;
            let Some(tls) = tls else {
                return Ok((Box::new(stream) as Box<dyn Stream>, Extension(Shown(None)).layer(service)));
            };
            let (stream, service) = tls.accept(stream, service).await?;
            let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let shown = Shown(shown.map(|shown| Certificate(Sha256::digest(shown).into())));
            Ok((Box::new(stream) as Box<dyn Stream>, Extension(shown).layer(service)))
        })
    }
}

/// TLS, at which clients may show a certificate or must.
#[derive(Clone)]
pub struct Tls(RustlsConfig);

impl Tls {
    /// By a certificate chain and its key, each a PEM file. With authorities, clients are asked for a certificate signed by
    /// one of them, which they must show if it is `required`.
    ///
    /// # Errors
    ///
    /// A file cannot be read or used; the message names it, and nothing in it.
    pub fn new(certificate: &Path, key: &Path, client: Option<(&Path, bool)>) -> Result<Self, String> {
        let chain = certificates(certificate)?;
        let private = PrivateKeyDer::from_pem_slice(&read(key)?)
            .map_err(|_| format!("{}: there is no private key in it (PEM)", key.display()))?;
        let builder = ServerConfig::builder();
        let builder = match client {
            None => builder.with_no_client_auth(),
            Some((authorities, is_required)) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(self::authorities(authorities)?);
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots));
                let verifier = if is_required { verifier } else { verifier.allow_unauthenticated() };
                let unfit = |e| format!("{}: {e}", authorities.display());
                builder.with_client_cert_verifier(verifier.build().map_err(unfit)?)
            }
        };
        let unfit =
            |e| format!("{} and {} cannot be used together: {e}", certificate.display(), key.display());
        let mut config = builder.with_single_cert(chain, private).map_err(unfit)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Tls(RustlsConfig::from_config(Arc::new(config))))
    }
}

/// The authorities in a PEM file.
pub(crate) fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let authorities = certificates(path)?;
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        roots.add(authority.clone()).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(authorities)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let chain = read.ok().filter(|chain| !chain.is_empty());
    chain.ok_or_else(|| format!("{}: there are no certificates in it (PEM)", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("{}: it cannot be read: {e}", path.display()))
}
