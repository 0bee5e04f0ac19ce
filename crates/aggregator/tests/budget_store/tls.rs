//! A certificate for a server, by an authority of its own, in files.

use std::fs;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// The files, as long as they are needed.
pub struct Files(TempDir);

impl Files {
    /// A new authority, and a certificate of it for that name.
    pub fn of(name: &str) -> Files {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A name of its own: an issuer of the same name would make the leaf look self-signed.
        authority
            .distinguished_name
            .push(DnType::CommonName, "an authority");
        write(
            "ca.pem",
            authority.self_signed(&authority_key).unwrap().pem(),
        );
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap();
        write(
            "cert.pem",
            certificate.signed_by(&key, &issuer).unwrap().pem(),
        );
        write("key.pem", key.serialize_pem());
        Files(folder)
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.0.path().join("ca.pem")
    }

    /// What a server is started with, to listen with TLS on that port.
    pub fn settings(&self, port: u16) -> [String; 10] {
        let file = |name: &str| self.0.path().join(name).display().to_string();
        [
            "--tls-port".into(),
            port.to_string(),
            "--tls-cert-file".into(),
            file("cert.pem"),
            "--tls-key-file".into(),
            file("key.pem"),
            "--tls-ca-cert-file".into(),
            file("ca.pem"),
            "--tls-auth-clients".into(),
            "no".into(),
        ]
    }
}
