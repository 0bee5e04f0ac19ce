//! The mutual TLS between two Envoys, as a mesh has it between a sidecar and a gateway.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};

/// Where the certificates lie.
#[derive(Debug)]
pub struct Hop {
    ca: PathBuf,
    caller: Pair,
    gateway: Pair,
}

/// A certificate and its key.
#[derive(Debug)]
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

impl Hop {
    /// A new CA in `dir`, and certificates of it for the caller, a SPIFFE id, and for its gateway.
    pub fn by(caller: &str, dir: &Path) -> anyhow::Result<Hop> {
        let key = KeyPair::generate()?;
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name
            .push(DnType::CommonName, "tollmesh-tests mesh CA");
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let file = dir.join("mesh-ca.pem");
        fs::write(&file, ca.self_signed(&key)?.pem()).context("cannot write the mesh's CA")?;
        let issuer = Issuer::new(ca, key);
        Ok(Hop {
            ca: file,
            caller: Pair::of(caller, &issuer, dir, "caller")?,
            gateway: Pair::of(
                "spiffe://cluster.local/ns/mesh/sa/gw",
                &issuer,
                dir,
                "gateway-id",
            )?,
        })
    }

    /// Puts what both sides need into a folder, under the names that Istio's agent has for them.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn install(&self, folder: &Path) -> anyhow::Result<()> {
        for (from, to) in [
            (&self.ca, "root-cert.pem"),
            (&self.gateway.certificate, "cert-chain.pem"),
            (&self.gateway.key, "key.pem"),
            (&self.caller.certificate, "caller.pem"),
            (&self.caller.key, "caller.key"),
        ] {
            fs::copy(from, folder.join(to)).with_context(|| format!("cannot write {to}"))?;
        }
        Ok(())
    }

    /// Has every listener take calls of proven callers only.
    pub fn takes(&self, config: &mut Value) {
        let mut context = self.context(&self.gateway, "DownstreamTlsContext");
        context["typed_config"]["require_client_certificate"] = json!(true);
        let listeners = config.pointer_mut("/static_resources/listeners");
        for listener in listeners
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let chains = listener["filter_chains"].as_array_mut();
            for chain in chains.into_iter().flatten() {
                chain["transport_socket"] = context.clone();
            }
        }
    }

    /// Has every provider's cluster call as the caller.
    pub fn calls(&self, config: &mut Value) {
        let context = self.context(&self.caller, "UpstreamTlsContext");
        let clusters = config.pointer_mut("/static_resources/clusters");
        for cluster in clusters.and_then(Value::as_array_mut).into_iter().flatten() {
            if cluster["name"] != "tollmesh" {
                cluster["transport_socket"] = context.clone();
            }
        }
    }

    fn context(&self, pair: &Pair, kind: &str) -> Value {
        const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
        json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": format!("{TLS}.{kind}"),
                "common_tls_context": {
                    "tls_certificates": [{
                        "certificate_chain": { "filename": pair.certificate },
                        "private_key": { "filename": pair.key }
                    }],
                    "validation_context": { "trusted_ca": { "filename": self.ca } }
                }
            }
        })
    }
}

impl Pair {
    fn of(uri: &str, issuer: &Issuer<'_, KeyPair>, dir: &Path, name: &str) -> anyhow::Result<Pair> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        let pair = Pair {
            certificate: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}.key")),
        };
        fs::write(&pair.certificate, params.signed_by(&key, issuer)?.pem())?;
        fs::write(&pair.key, key.serialize_pem())?;
        Ok(pair)
    }
}
