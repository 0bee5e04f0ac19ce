//! What questions can speak of: columns, tags, and spans of time.

use tollmesh_wire::Timestamp;

/// A fact about a call that questions can group by or ask for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dimension {
    /// What the mesh or the provider says.
    Column(Column),
    /// What the call's headers claim, by the tag's name.
    Tag(String),
}

/// A fact that no header can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Column {
    /// Who serves and bills the call.
    Provider,
    /// The API, as `openai.chat`.
    Api,
    /// The request's authority.
    Host,
    /// The model that served, or else the one asked for.
    Model,
    /// The model asked for.
    ModelRequested,
    /// The model that budgets judge a call by: the one that a budget put, else the one that was asked
    /// for, else the one that served.
    ModelJudged,
    /// The service tier.
    ServiceTier,
    /// Kubernetes namespace.
    Namespace,
    /// Workload.
    Workload,
    /// Kubernetes service account.
    ServiceAccount,
    /// SPIFFE id of the peer.
    Principal,
    /// Pod name.
    Pod,
    /// Node name.
    Node,
    /// Cluster name.
    Cluster,
    /// How the call ended.
    Outcome,
    /// Where its counts come from.
    UsageSource,
    /// How sure its cost is.
    CostStatus,
    /// The event's id.
    EventId,
    /// `x-request-id`.
    RequestId,
    /// The trace.
    TraceId,
    /// The provider's id of the response.
    ResponseId,
    /// HTTP status.
    Status,
    /// The provider's word for why the first choice ended.
    FinishReason,
    /// Why the scan is less than whole.
    Trouble,
    /// The keyed hash of the request's body.
    Fingerprint,
    /// What became of the call, as it was told: accepted, rejected, or any other word.
    OutcomeLabel,
}

/// A condition: the dimension has that value. An empty value asks for the calls without any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// What is looked at.
    pub dimension: Dimension,
    /// The value that it must have; empty for none.
    pub value: String,
    /// Where there are any, patterns of which the value fits one, in lower case
    /// ([`tollmesh_wire::matching::forms`]); `value` is then what people call them.
    pub forms: Vec<String>,
}

/// A span of time: from `from` on, before `to`; open where absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first instant in it.
    pub from: Option<Timestamp>,
    /// The first instant after it.
    pub to: Option<Timestamp>,
}

impl Column {
    /// Every column, in the order in which they are documented.
    pub const ALL: [Column; 26] = [
        Column::Provider,
        Column::Api,
        Column::Host,
        Column::Model,
        Column::ModelRequested,
        Column::ModelJudged,
        Column::ServiceTier,
        Column::Namespace,
        Column::Workload,
        Column::ServiceAccount,
        Column::Principal,
        Column::Pod,
        Column::Node,
        Column::Cluster,
        Column::Outcome,
        Column::UsageSource,
        Column::CostStatus,
        Column::EventId,
        Column::RequestId,
        Column::TraceId,
        Column::ResponseId,
        Column::Status,
        Column::FinishReason,
        Column::Trouble,
        Column::Fingerprint,
        Column::OutcomeLabel,
    ];

    /// The name in queries and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Column::Provider => "provider",
            Column::Api => "api",
            Column::Host => "host",
            Column::Model => "model",
            Column::ModelRequested => "model_requested",
            Column::ModelJudged => "model_judged",
            Column::ServiceTier => "service_tier",
            Column::Namespace => "namespace",
            Column::Workload => "workload",
            Column::ServiceAccount => "service_account",
            Column::Principal => "principal",
            Column::Pod => "pod",
            Column::Node => "node",
            Column::Cluster => "cluster",
            Column::Outcome => "outcome",
            Column::UsageSource => "usage_source",
            Column::CostStatus => "cost_status",
            Column::EventId => "event_id",
            Column::RequestId => "request_id",
            Column::TraceId => "trace_id",
            Column::ResponseId => "response_id",
            Column::Status => "status",
            Column::FinishReason => "finish_reason",
            Column::Trouble => "trouble",
            Column::Fingerprint => "fingerprint",
            Column::OutcomeLabel => "outcome_label",
        }
    }

    /// The column of that name, or `None`.
    pub fn parse(name: &str) -> Option<Column> {
        Column::ALL.into_iter().find(|c| c.name() == name)
    }

    /// Whether sums of days and months by tags leave it out.
    pub const fn is_of_pods(self) -> bool {
        matches!(self, Column::Pod | Column::Node)
    }

    /// Whether only rows know it, not the hourly sums.
    pub const fn is_of_rows_only(self) -> bool {
        self as usize >= Column::EventId as usize
    }
}

impl Dimension {
    /// The column of that name, else the tag: a tag can never stand in for a column.
    pub fn parse(name: &str) -> Dimension {
        match Column::parse(name) {
            Some(column) => Dimension::Column(column),
            None => Dimension::Tag(name.to_owned()),
        }
    }

    /// The name in queries and answers.
    pub fn name(&self) -> &str {
        match self {
            Dimension::Column(column) => column.name(),
            Dimension::Tag(tag) => tag,
        }
    }
}

impl Filter {
    /// The condition that the dimension of that name has that value.
    pub fn new(name: &str, value: impl Into<String>) -> Filter {
        Filter {
            dimension: Dimension::parse(name),
            value: value.into(),
            forms: Vec::new(),
        }
    }
}
