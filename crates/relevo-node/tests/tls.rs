//! Nodes that speak TLS to each other, by certificates of an authority made here.

mod org;

use std::fs;

use org::{INITIAL, INITIAL_FRONT, Org, Served, peer};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use relevo_node::{
    folder::Folder,
    store::{Filter, Reader},
};
use reqwest::{Certificate, Client, Identity, StatusCode, header};
use sha2::{Digest, Sha256};

/// Signs the certificates of a test.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
struct Certified {
    certificate: String,
    key: String,
    digest: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for somebody at 127.0.0.1.
    fn certify(&self) -> Certified {
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let digest = Sha256::digest(certificate.der());
        let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Certified {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            digest: format!("certificate = \"sha256:{digest}\"\n"),
        }
    }
}

const TLS: &str = "[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n";

/// Give an organisation its certificate, and the authority that it believes.
fn equip(org: &Org, certified: &Certified, authority: &Authority) {
    org.write("cert.pem", &certified.certificate);
    org.write("key.pem", &certified.key);
    org.write("ca.pem", &authority.0.pem());
}

/// Ask a node for tasks, and show it this; what it says, if it speaks to whoever does so at all.
fn ask(
    node: &Served,
    authority: &Authority,
    token: Option<&str>,
    shown: Option<&Certified>,
) -> Option<StatusCode> {
    let mut client = Client::builder()
        .no_proxy()
        .tls_certs_only([Certificate::from_pem(authority.0.pem().as_bytes()).unwrap()]);
    if let Some(shown) = shown {
        let pem = format!("{}{}", shown.certificate, shown.key);
        client = client.identity(Identity::from_pem(pem.as_bytes()).unwrap());
    }
    let url = format!("https://{}/agents/echo/tasks", node.address);
    let mut asking = client.build().unwrap().get(url).header("A2A-Version", "1.0");
    if let Some(token) = token {
        asking = asking.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    node.block_on(async { asking.send().await.ok().map(|told| told.status()) })
}

#[test]
fn two_nodes_that_know_each_other_by_certificates_hand_over_and_learn() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (ours, theirs, other) = (authority.certify(), authority.certify(), stranger.certify());
    let settings = format!("{TLS}client_ca = \"ca.pem\"\nclient = \"required\"\n")
        + &peer("orga", "https://127.0.0.1:9", Some("token-a"), &ours.digest)
        + &peer("orgc", "https://127.0.0.1:9", Some("token-c"), &theirs.digest);
    let orgb = Org::echoing("orgb", &settings);
    equip(&orgb, &theirs, &authority);
    let b = orgb.start().unwrap();

    let url = format!("https://{}", b.address);
    let of_b = |ca: &str| peer("orgb", &url, None, &format!("ca = {ca:?}\nkey = \"ORGB_TOKEN\"\n"));
    let orga = Org::forwarding("orga", &format!("{TLS}{}", of_b("ca.pem")));
    orga.write(".env", "ORGB_TOKEN=token-a\n");
    equip(&orga, &ours, &authority);
    let a = orga.start().unwrap();
    let handed = a.hand("over the wire");
    assert_eq!(handed.result.unwrap().payload[..], b"over the wire"[..]);
    assert_eq!(handed.value, Some(INITIAL_FRONT));
    // Q ← Q + a·(V − Q), with the V that has come back.
    assert_eq!(a.hand("again").value, Some(INITIAL_FRONT + 0.5 * (INITIAL - INITIAL_FRONT)));
    assert_eq!(orga.counted("orgb").of("valued"), 2);

    // The operator comes in by a door of its own, which is for this machine and for nobody else.
    let operators = Folder::open(&b.spec.state_folder()).unwrap().address().unwrap();
    assert!(operators.ip().is_loopback() && operators != b.address);
    let beside = Client::builder().no_proxy().build().unwrap();
    let asked = beside.get(format!("http://{operators}/agents/echo/tasks")).header("A2A-Version", "1.0");
    let asked = asked.header(header::AUTHORIZATION, "Bearer token-a");
    let told = b.block_on(async { asked.send().await.unwrap().status() });
    assert_eq!(told, StatusCode::UNAUTHORIZED, "no peer comes in by it");

    for (what, token, shown, told) in [
        ("both", Some("token-a"), Some(&ours), Some(StatusCode::OK)),
        ("no token", None, Some(&ours), Some(StatusCode::UNAUTHORIZED)),
        ("another's token", Some("token-c"), Some(&ours), Some(StatusCode::UNAUTHORIZED)),
        (
            "a certificate of nobody",
            Some("token-a"),
            Some(&authority.certify()),
            Some(StatusCode::UNAUTHORIZED),
        ),
        ("no certificate", Some("token-a"), None, None),
        ("one of another authority", Some("token-a"), Some(&other), None),
    ] {
        assert_eq!(ask(&b, &authority, token, shown), told, "{what}");
    }
    a.stop();

    // Whoever is not who it should be is sent nothing.
    let orga = Org::forwarding("orga", &format!("{TLS}{}[time]\ndeadline_ms = 1500\n", of_b("other.pem")));
    orga.write(".env", "ORGB_TOKEN=token-a\n");
    equip(&orga, &ours, &authority);
    orga.write("other.pem", &stranger.0.pem());
    let a = orga.start().unwrap();
    assert_eq!(a.hand("to whom?").result, Err("failed".to_owned()));
    a.stop();
    assert_eq!(orga.counted("operator").of("deadline"), 1);
    assert!(orga.counted("orgb").of("unreachable") > 0);
    let filter = Filter { limit: 10, ..Filter::default() };
    assert_eq!(orgb.kept().tasks(org::PEER, &filter).unwrap().1, 2, "only what came before");
    b.stop();
}

#[test]
fn where_certificates_are_not_required_a_token_or_a_certificate_of_one_peer_is_enough() {
    let authority = Authority::new();
    let (a, c) = (authority.certify(), authority.certify());
    let settings = format!("{TLS}client_ca = \"ca.pem\"\n")
        + &peer("orga", "https://127.0.0.1:9", Some("token-a"), "")
        + &peer("orgc", "https://127.0.0.1:9", None, &c.digest);
    let org = Org::echoing("orgb", &settings);
    equip(&org, &authority.certify(), &authority);
    let node = org.start().unwrap();
    for (what, token, shown, told) in [
        ("a token", Some("token-a"), None, StatusCode::OK),
        ("a certificate", None, Some(&c), StatusCode::OK),
        ("a token, with a certificate of nobody", Some("token-a"), Some(&a), StatusCode::OK),
        ("a certificate, with a token of nobody", Some("token-x"), Some(&c), StatusCode::OK),
        (
            "the token of one and the certificate of another",
            Some("token-a"),
            Some(&c),
            StatusCode::UNAUTHORIZED,
        ),
        ("nothing", None, None, StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(ask(&node, &authority, token, shown), Some(told), "{what}");
    }
    node.stop();
}

#[test]
fn files_that_cannot_be_used_are_named_and_not_shown() {
    let (authority, other) = (Authority::new(), Authority::new().certify());
    let of_b = peer("orgb", "https://127.0.0.1:9", None, "ca = \"ca.pem\"\n");
    let settings = format!("{TLS}client_ca = \"clients.pem\"\n{of_b}");
    let broken = "-----BEGIN CERTIFICATE-----\nc2VjcmV0IGdhcmJhZ2U=\n-----END CERTIFICATE-----\n";
    for file in ["cert.pem", "key.pem", "clients.pem", "ca.pem"] {
        let anothers = if file == "cert.pem" { &other.certificate } else { &other.key };
        for text in [None, Some(""), Some("secret garbage"), Some(broken), Some(anothers)] {
            let org = Org::forwarding("orga", &settings);
            equip(&org, &authority.certify(), &authority);
            org.write("clients.pem", &authority.0.pem());
            match text {
                Some(text) => org.write(file, text),
                None => fs::remove_file(org.path(file)).unwrap(),
            }
            let Err(error) = org.start().map(Served::stop) else { panic!("{file} with {text:?} is taken") };
            let error = error.to_string();
            assert!(error.contains(file), "{file}, {text:?}: {error}");
            let says = if text.is_some() {
                ["certificate", "key in it", "be used together"]
            } else {
                ["cannot be read"; 3]
            };
            assert!(says.iter().any(|says| error.contains(says)), "{file}, {text:?}: {error}");
            assert!(!error.contains("secret") && !error.contains("c2Vj"), "{error}");
        }
    }
}

#[test]
fn what_others_could_reach_unseen_is_refused_when_the_file_is_read() {
    let beyond = "[listen]\naddress = \"0.0.0.0:0\"\n";
    let public = format!("{beyond}public = true\n");
    let known = format!("[peers.orga]\nurl = \"https://x\"\ncertificate = \"sha256:{}\"\n", "0".repeat(64));
    for (settings, says) in [
        (beyond.to_owned(), "public = true"),
        (format!("{beyond}{TLS}"), "public = true"),
        (public.clone(), "[tls]"),
        (format!("{TLS}client = \"required\"\n"), "client_ca"),
        (format!("{TLS}client = \"perhaps\"\n"), "perhaps"),
        ("[tls]\ncertificate = \"cert.pem\"\n".to_owned(), "key"),
        (known.clone(), "client_ca"),
        (format!("{TLS}{known}"), "client_ca"),
    ] {
        let org = Org::echoing("orgb", &settings);
        let error = org.load().map(drop).unwrap_err();
        assert!(error.contains("node.toml:") && error.contains(says), "{settings}{error}");
    }
    let org = Org::echoing("orgb", &format!("{public}{TLS}"));
    assert!(org.load().is_ok());
}
