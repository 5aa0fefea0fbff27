use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

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
pub struct Identities {
    known: BTreeMap<PeerId, Identity>,
    tells_private: bool,
}

impl Identities {
    /// These; one that shows nothing is nobody. `tells_private` says whether they may want to be told at private addresses: a
    /// node that others can reach must not reach for them what they cannot.
    pub fn new(known: BTreeMap<PeerId, Identity>, tells_private: bool) -> Self {
        Identities { known, tells_private }
    }

    /// One of them alone.
    pub(crate) fn alone(mut self, peer: PeerId) -> Self {
        self.known.retain(|known, _| *known == peer);
        self
    }

    /// Who shows this token and this certificate: all that it is known by, and nothing that another is known by. All are
    /// looked at, whoever it is.
    pub fn who(&self, token: Option<&str>, certificate: Option<&Certificate>) -> Option<(PeerId, &Identity)> {
        let token = token.map(TokenHash::of);
        let (mut named, mut found) = (0, None);
        for (peer, identity) in &self.known {
            let shows_token = identity.token.is_some() & (identity.token == token);
            let shows_certificate =
                identity.certificate.is_some() & (identity.certificate.as_ref() == certificate);
            if shows_token | shows_certificate {
                named += 1;
                let shows_all = (shows_token | identity.token.is_none())
                    & (shows_certificate | identity.certificate.is_none());
                found = shows_all.then_some((*peer, identity));
            }
        }
        found.filter(|_| named == 1)
    }

    /// Those who may want to be told of the end of a task.
    pub(super) fn told(&self) -> impl Iterator<Item = PeerId> {
        self.known.iter().filter(|(_, identity)| !identity.push.is_empty()).map(|(peer, _)| *peer)
    }

    /// Whether anybody may want to be told at a private address.
    pub(super) fn tells_private(&self) -> bool {
        self.tells_private
    }

    /// Whether a peer may want to be told at this address: the origin of one that is allowed, and below its path. Where a
    /// name leads to is seen only when it is gone to.
    pub(super) fn may_push(&self, peer: PeerId, url: &Url) -> bool {
        let allowed = self.known.get(&peer).map(|identity| &identity.push[..]).unwrap_or_default();
        let is_below = |prefix: &Url| {
            let rest = url.path().strip_prefix(prefix.path().trim_end_matches('/'));
            url.origin() == prefix.origin()
                && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        url.username().is_empty()
            && url.password().is_none()
            && allowed.iter().any(is_below)
            && (self.tells_private || host.parse().map_or(true, is_public))
    }
}

/// Whether an address is one of the internet, and not of a machine or a network of somebody.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let is_shared = a == 100 && b & 0xc0 == 64;
            let is_reserved = a == 0 || a >= 240 || (a, b, c) == (192, 0, 0) || (a == 198 && b & 0xfe == 18);
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_documentation()
                || is_shared
                || is_reserved)
        }
        // Global unicast, without those that hold an address of version 4 (NAT64 is outside of it), and examples.
        IpAddr::V6(v6) => {
            let [a, b, ..] = v6.segments();
            a & 0xe000 == 0x2000 && a != 0x2002 && !(a == 0x2001 && (b < 0x200 || b == 0xdb8))
        }
    }
}
