use std::{collections::BTreeMap, fmt, str::FromStr};

use reqwest::{Url, header::HeaderValue};

use crate::ids::PeerId;

/// What is shown to a peer, and to nobody else: it cannot be printed.
#[derive(Clone)]
pub struct Secret(HeaderValue);

impl Secret {
    /// A bearer token; `None` where it could not stand in a header.
    pub fn bearer(token: &str) -> Option<Self> {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
        value.set_sensitive(true);
        Some(Secret(value))
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// By what a bearer token is known: its hash. A token is random, so that a fast hash is enough. Two are compared in
/// constant time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenHash(blake3::Hash);

impl TokenHash {
    /// The hash of a token.
    pub fn of(token: &str) -> Self {
        TokenHash(blake3::derive_key("relevo 2026 bearer token of a peer v1", token.as_bytes()).into())
    }
}

impl FromStr for TokenHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.strip_prefix("blake3:")
            .and_then(|hex| blake3::Hash::from_hex(hex).ok())
            .map(TokenHash)
            .ok_or_else(|| "the hash of a token is `blake3:` and 64 hexadecimal digits".to_owned())
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blake3:{}", self.0.to_hex())
    }
}

/// The SHA-256 of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate(pub [u8; 32]);

impl FromStr for Certificate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digest = text.strip_prefix("sha256:").and_then(|hex| blake3::Hash::from_hex(hex).ok());
        let digest = digest.ok_or("a certificate is `sha256:` and 64 hexadecimal digits")?;
        Ok(Certificate(*digest.as_bytes()))
    }
}

/// The certificate that a client has shown, if it has; put beside its requests by whoever ends TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown(pub(crate) Option<Certificate>);

/// How a peer is known, and what it may do at this door.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The token that it shows.
    pub token: Option<TokenHash>,
    /// The certificate that it shows; where there is a token too, both are needed.
    pub certificate: Option<Certificate>,
    /// Requests a second that it may make.
    pub rate: f64,
    /// Requests that it may make at once.
    pub burst: f64,
    /// Below which addresses it may want to be told of the end of a task.
    pub push: Vec<Url>,
}

/// Who is known.
#[derive(Clone, Debug, Default)]
pub struct Identities(BTreeMap<PeerId, Identity>);

impl Identities {
    /// These; one that shows nothing is nobody.
    pub fn new(known: BTreeMap<PeerId, Identity>) -> Self {
        Identities(known)
    }

    /// Who shows this token and this certificate. All are looked at, whoever it is.
    pub fn who(&self, token: Option<&str>, certificate: Option<&Certificate>) -> Option<(PeerId, &Identity)> {
        let token = token.map(TokenHash::of);
        let mut found = None;
        for (peer, identity) in &self.0 {
            let shows_token = identity.token.is_none_or(|known| token.is_some_and(|shown| shown == known));
            let shows_certificate = identity.certificate.is_none_or(|known| certificate == Some(&known));
            let is_known = identity.token.is_some() || identity.certificate.is_some();
            if is_known & shows_token & shows_certificate {
                found = Some((*peer, identity));
            }
        }
        found
    }

    pub(super) fn of(&self, peer: PeerId) -> Option<&Identity> {
        self.0.get(&peer)
    }
}

impl Identity {
    /// Whether it may want to be told at this address: the origin of one that is allowed, and below its path.
    pub(super) fn may_push_to(&self, url: &Url) -> bool {
        url.username().is_empty()
            && url.password().is_none()
            && self.push.iter().any(|prefix| {
                let folder = prefix.path().trim_end_matches('/');
                url.origin() == prefix.origin()
                    && url
                        .path()
                        .strip_prefix(folder)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
    }
}
