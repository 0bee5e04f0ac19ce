//! A provider's TLS identity: a certificate for given names, signed by a CA of its own.

use std::sync::Arc;

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// Who the provider proves to be, and by whose word.
pub struct Identity {
    /// The CA's certificate in PEM: what Envoy has to trust.
    pub ca_pem: String,
    /// The certificate in PEM, for servers that read files.
    pub certificate_pem: String,
    /// Its key in PEM.
    pub key_pem: String,
    /// Takes connections under the certificate; offers HTTP/2 and HTTP/1.1 by ALPN.
    pub acceptor: TlsAcceptor,
}

impl Identity {
    /// A new CA, and a certificate of it for `names`.
    pub fn of(names: &[&str]) -> anyhow::Result<Identity> {
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A name of its own: an issuer of the same name would make the leaf look self-signed.
        ca.distinguished_name
            .push(DnType::CommonName, "tollmesh-tests CA");
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca_pem = ca.self_signed(&ca_key)?.pem();
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        let (certificate_pem, key_pem) = (certificate.pem(), key.serialize_pem());
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .context("the provider's certificate does not fit its key")?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Identity {
            ca_pem,
            certificate_pem,
            key_pem,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }
}
