//! Who calls, as the mesh knows it: from Envoy's node and the peer's certificate, never a header.

use tollmesh_wire::Source;

/// What Envoy's node says of itself. Keys of the metadata are those that Istio's agent writes
/// (`NodeMetadata`, <https://pkg.go.dev/istio.io/istio/pkg/model#NodeMetadata>).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// `node.id`
    pub id: String,
    /// `node.cluster`
    pub cluster: String,
    /// `NAMESPACE`
    pub namespace: Option<String>,
    /// `WORKLOAD_NAME`
    pub workload_name: Option<String>,
    /// `SERVICE_ACCOUNT`
    pub service_account: Option<String>,
    /// `NAME`, the pod
    pub name: Option<String>,
    /// `NODE_NAME`
    pub node_name: Option<String>,
    /// `CLUSTER_ID`
    pub cluster_id: Option<String>,
}

impl NodeFacts {
    /// The source of calls whose peer shows no certificate.
    ///
    /// What the configuration says comes first. A sidecar's calls come from its own workload; a
    /// gateway's or a waypoint's do not, so of their node only the place is taken. An Envoy that no
    /// Istio runs may be either: the id and the cluster that its node is configured with
    /// (<https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/core/v3/base.proto#config-core-v3-node>)
    /// say the place, where its metadata does not.
    pub fn source(&self, configured: &Source) -> Source {
        let is_shared = self.id.starts_with("router~") || self.id.starts_with("waypoint~");
        let own = |fact: &Option<String>| fact.clone().filter(|_| !is_shared);
        let is_istio = is_shared || self.id.starts_with("sidecar~");
        let plain = |text: &String| Some(text.clone()).filter(|t| !is_istio && !t.is_empty());
        let place = |fact: &Option<String>, text| fact.clone().or_else(|| plain(text));
        let first = |set: &Option<String>, fact: Option<String>| set.clone().or(fact);
        Source {
            namespace: first(&configured.namespace, own(&self.namespace)),
            workload: first(&configured.workload, own(&self.workload_name)),
            service_account: first(&configured.service_account, own(&self.service_account)),
            principal: None,
            pod: first(&configured.pod, own(&self.name)),
            node: first(&configured.node, place(&self.node_name, &self.id)),
            cluster: first(&configured.cluster, place(&self.cluster_id, &self.cluster)),
        }
    }
}

/// The source of one call: the peer's certified identity where there is one, for then the call is
/// the peer's and not this proxy's.
pub fn source(unproven: &Source, principal: Option<&str>) -> Source {
    let Some(principal) = principal.filter(|p| p.starts_with("spiffe://")) else {
        return unproven.clone();
    };
    let (namespace, service_account) = match kubernetes_identity(principal) {
        Some((namespace, account)) => (Some(namespace.to_owned()), Some(account.to_owned())),
        None => (None, None),
    };
    Source {
        namespace,
        workload: None,
        service_account,
        principal: Some(principal.to_owned()),
        pod: None,
        node: unproven.node.clone(),
        cluster: unproven.cluster.clone(),
    }
}

/// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`
/// (<https://istio.io/latest/docs/concepts/security/#istio-identity>).
fn kubernetes_identity(principal: &str) -> Option<(&str, &str)> {
    let path = principal.strip_prefix("spiffe://")?;
    let mut parts = path.split('/').skip(1);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("ns"), Some(namespace), Some("sa"), Some(account)) => Some((namespace, account)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str) -> NodeFacts {
        NodeFacts {
            id: id.to_owned(),
            namespace: Some("shop".to_owned()),
            workload_name: Some("checkout".to_owned()),
            cluster_id: Some("eu-1".to_owned()),
            ..NodeFacts::default()
        }
    }

    #[test]
    fn a_sidecar_speaks_for_its_workload_and_a_gateway_does_not() {
        let none = Source::default();
        let sidecar = node("sidecar~10.0.0.1~a.shop~shop.svc").source(&none);
        assert_eq!(sidecar.namespace.as_deref(), Some("shop"));
        assert_eq!(sidecar.workload.as_deref(), Some("checkout"));
        let gateway = node("router~10.0.0.1~gw.istio-egress~x").source(&none);
        assert_eq!(gateway.namespace, None);
        assert_eq!(gateway.cluster.as_deref(), Some("eu-1"));
        let configured = Source {
            namespace: Some("plain".to_owned()),
            ..Source::default()
        };
        let plain = node("plain-envoy").source(&configured);
        assert_eq!(plain.namespace.as_deref(), Some("plain"));
    }

    #[test]
    fn an_envoy_without_istio_has_the_place_that_its_node_names() {
        let bare = NodeFacts {
            id: "edge-7".to_owned(),
            cluster: "edge".to_owned(),
            ..NodeFacts::default()
        };
        let source = bare.source(&Source::default());
        assert_eq!(source.node.as_deref(), Some("edge-7"));
        assert_eq!(source.cluster.as_deref(), Some("edge"));
        assert_eq!((source.workload, source.pod), (None, None));
        let nameless = NodeFacts::default().source(&Source::default());
        assert_eq!(nameless, Source::default());
        let sidecar = NodeFacts {
            id: "sidecar~10.0.0.1~a.shop~shop.svc".to_owned(),
            ..bare
        };
        let source = sidecar.source(&Source::default());
        assert_eq!((source.node, source.cluster), (None, None));
    }

    #[test]
    fn a_certificate_outranks_the_node() {
        let own = node("sidecar~x").source(&Source::default());
        let proven = source(&own, Some("spiffe://cluster.local/ns/web/sa/cart"));
        assert_eq!(proven.namespace.as_deref(), Some("web"));
        assert_eq!(proven.service_account.as_deref(), Some("cart"));
        assert_eq!(proven.workload, None);
        assert_eq!(proven.cluster.as_deref(), Some("eu-1"));
        let odd = source(&own, Some("spiffe://example.org/payments"));
        assert_eq!(odd.namespace, None);
        assert!(odd.principal.is_some());
        assert_eq!(source(&own, Some("https://not-an-identity")), own);
        assert_eq!(source(&own, None), own);
    }
}
