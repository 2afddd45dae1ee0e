//! Every route of the admin API, once: the router and the OpenAPI document are both made from here.
//!
//! Invariant: a route that is served is documented, and the other way round.

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse as _;
use axum::routing::{MethodFilter, get, on};
use http::{Method, header};

use super::Admin;
use super::aliases::Aliases;
use super::apps::Apps;
use super::caller::authenticate;
use super::channels::Channels;
use super::collection::{Codes, Collection};
use super::fx_rates::FxRates;
use super::hatches::Lever;
use super::keys::Keys;
use super::prices::Prices;
use super::problem::{Code, Problem};
use super::quotas::Quotas;
use super::tasks::Wish;
use super::token_groups::TokenGroups;

mod serve;

use serve::{serve, serve_alias};

/// Every kind of row, in the order of the document.
pub(crate) const COLLECTIONS: &[&dyn Collection] =
    &[&Channels, &Aliases, &Prices, &FxRates, &Quotas, &TokenGroups, &Apps, &Keys];

/// What can be done with rows of any kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Create,
    List,
    Read,
    Change,
    Delete,
    Versions,
    Restore,
}

/// What an endpoint does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    Rows(Verb, &'static dyn Collection),
    TopUp,
    TrueUp,
    Refund,
    Adjust,
    Grant,
    Grants,
    Balance,
    Statement,
    Request,
    Postings,
    TrialBalance,
    Payables,
    Estimates,
    Clear,
    Invoice,
    Invoices,
    Margin,
    Verify,
    Usage,
    Audit,
    Circuits,
    Nodes,
    Queues,
    LimitsOfKey,
    Tasks(Wish),
    Hatch(Lever),
}

/// One method of one path.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// The method.
    pub(crate) method: Method,
    /// The path under the base, names in braces.
    pub(crate) path: String,
    /// What it does.
    pub(crate) action: Action,
}

impl Verb {
    const ALL: &'static [Self] = &[
        Self::List,
        Self::Create,
        Self::Read,
        Self::Change,
        Self::Delete,
        Self::Versions,
        Self::Restore,
    ];

    fn endpoint(self, collection: &'static dyn Collection) -> Endpoint {
        let minted = collection.codes() == Codes::Minted;
        let (parent, name) = if minted { ("/apps/{app}", "{kid}") } else { ("", "{code}") };
        let root = format!("{parent}/{}", collection.path());
        let (method, path) = match self {
            Self::List => (Method::GET, root),
            Self::Create => (Method::POST, root),
            Self::Read => (Method::GET, format!("{root}/{name}")),
            Self::Change => (Method::PATCH, format!("{root}/{name}")),
            Self::Delete => (Method::DELETE, format!("{root}/{name}")),
            Self::Versions => (Method::GET, format!("{root}/{name}/versions")),
            Self::Restore => (Method::POST, format!("{root}/{name}/versions/{{n}}/restore")),
        };
        Endpoint { method, path, action: Action::Rows(self, collection) }
    }
}

impl Endpoint {
    /// Model names may hold slashes, so what lies below them cannot be told apart by the router.
    fn is_below_model_name(&self) -> bool {
        match self.action {
            Action::Rows(verb, collection) => {
                !matches!(verb, Verb::Create | Verb::List) && collection.codes() == Codes::ModelName
            }
            Action::TopUp
            | Action::TrueUp
            | Action::Refund
            | Action::Adjust
            | Action::Grant
            | Action::Grants
            | Action::Balance
            | Action::Statement
            | Action::Request
            | Action::Postings
            | Action::TrialBalance
            | Action::Payables
            | Action::Estimates
            | Action::Clear
            | Action::Invoice
            | Action::Invoices
            | Action::Margin
            | Action::Verify
            | Action::Usage
            | Action::Audit
            | Action::Circuits
            | Action::Nodes
            | Action::Queues
            | Action::LimitsOfKey
            | Action::Tasks(_)
            | Action::Hatch(_) => false,
        }
    }
}

/// Every endpoint but the document itself.
pub(crate) fn all() -> Vec<Endpoint> {
    let rows = COLLECTIONS
        .iter()
        .flat_map(|collection| Verb::ALL.iter().map(|verb| verb.endpoint(*collection)));
    let others = [
        (Method::POST, "/apps/{code}/topups", Action::TopUp),
        (Method::POST, "/apps/{code}/refunds", Action::Refund),
        (Method::POST, "/apps/{code}/adjustments", Action::Adjust),
        (Method::POST, "/apps/{code}/promos", Action::Grant),
        (Method::GET, "/apps/{code}/promos", Action::Grants),
        (Method::GET, "/apps/{code}/balance", Action::Balance),
        (Method::GET, "/apps/{code}/statement", Action::Statement),
        (Method::GET, "/requests/{code}", Action::Request),
        (Method::POST, "/requests/{code}/true-up", Action::TrueUp),
        (Method::GET, "/ledger/postings", Action::Postings),
        (Method::GET, "/ledger/trial-balance", Action::TrialBalance),
        (Method::GET, "/ledger/payables", Action::Payables),
        (Method::GET, "/ledger/estimates", Action::Estimates),
        (Method::POST, "/ledger/estimates/clear", Action::Clear),
        (Method::POST, "/ledger/invoices", Action::Invoice),
        (Method::GET, "/ledger/invoices", Action::Invoices),
        (Method::GET, "/ledger/margin", Action::Margin),
        (Method::GET, "/ledger/verify", Action::Verify),
        (Method::GET, "/usage", Action::Usage),
        (Method::GET, "/audit", Action::Audit),
        (Method::GET, "/circuits", Action::Circuits),
        (Method::GET, "/nodes", Action::Nodes),
        (Method::GET, "/queues", Action::Queues),
        (Method::GET, "/apps/{app}/keys/{kid}/limits", Action::LimitsOfKey),
        (Method::GET, "/tasks", Action::Tasks(Wish::List)),
        (Method::GET, "/tasks/{id}", Action::Tasks(Wish::Read)),
        (Method::POST, "/tasks/{id}/cancel", Action::Tasks(Wish::Cancel)),
        (Method::POST, "/tasks/{id}/webhook", Action::Tasks(Wish::Replay)),
    ];
    let others = others.into_iter().map(|(method, path, action)| Endpoint {
        method,
        path: path.to_owned(),
        action,
    });
    let levers = Lever::ALL.iter().map(|(method, path, lever)| Endpoint {
        method: method.clone(),
        path: (*path).to_owned(),
        action: Action::Hatch(*lever),
    });
    rows.chain(others).chain(levers).collect()
}

/// The admin API without its base path.
pub fn router(admin: Admin) -> Router {
    let mut router = Router::new();
    for endpoint in all().into_iter().filter(|e| !e.is_below_model_name()) {
        let (filter, action) = (filter_of(&endpoint.method), endpoint.action);
        let handler = move |State(admin): State<Admin>, request: Request| async move {
            serve(&admin, action, request).await
        };
        router = router.route(&endpoint.path, on(filter, handler));
    }
    let below = MethodFilter::GET.or(MethodFilter::POST).or(MethodFilter::PATCH);
    let handler = |State(admin): State<Admin>, request: Request| async move {
        serve_alias(&admin, request).await
    };
    let document = super::openapi();
    let document = move || async move {
        ([(header::CONTENT_TYPE, "application/json")], document).into_response()
    };
    router
        .route("/aliases/{*code}", on(below.or(MethodFilter::DELETE), handler))
        .fallback(|| async { Problem::new(Code::NotFound, "no such path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(Code::MethodNotAllowed, "the path has no such method")
        })
        .layer(from_fn_with_state(admin.clone(), authenticate))
        .merge(Router::new().route("/openapi.json", get(document)))
        .with_state(admin)
}

fn filter_of(method: &Method) -> MethodFilter {
    match *method {
        Method::POST => MethodFilter::POST,
        Method::PATCH => MethodFilter::PATCH,
        Method::DELETE => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    }
}
