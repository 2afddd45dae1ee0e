//! Who may do what: every route, every role.

use super::super::endpoints::{self, Action, Verb};
use super::super::hatches::Lever;
use super::*;

fn filled(path: &str) -> String {
    path.replace("{code}", "acme")
        .replace("{app}", "acme")
        .replace("{kid}", "k")
        .replace("{n}", "1")
}

#[tokio::test]
async fn every_route_asks_for_a_token() {
    let desk = Desk::open().await;
    for endpoint in endpoints::all() {
        let path = filled(&endpoint.path);
        for authorization in ["", "Bearer at-nobody", "Basic YTpi", "Bearer", "at-admin"] {
            let request =
                ask(endpoint.method.clone(), &path).header("authorization", authorization);
            let refused = desk.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(refused.refusal().0, 401, "{} {path}", endpoint.method);
            assert_eq!(refused.body["code"], "unauthorized");
            assert!(refused.header("www-authenticate").starts_with("Bearer"));
        }
        let bare = ask(endpoint.method.clone(), &path).body(Body::empty()).unwrap();
        assert_eq!(desk.send(bare).await.status, 401, "{} {path}", endpoint.method);
    }
    let unknown = ask(Method::GET, "/unknown").body(Body::empty()).unwrap();
    assert_eq!(desk.send(unknown).await.status, 401);
    assert_eq!(desk.get("/apps/%00").await.status, 404);
    assert_eq!(desk.get("/apps/%ff").await.status, 404);
    assert_eq!(desk.get("/apps?after=%00").await.status, 400);
}

#[tokio::test]
async fn every_role_may_do_its_own_and_no_more() {
    let desk = Desk::open().await;
    for endpoint in endpoints::all() {
        let path = filled(&endpoint.path);
        let body = json!({"version_no": 1, "name": "x"});
        let change = matches!(endpoint.action, Action::Rows(Verb::Change, _));
        let pulls = matches!(
            endpoint.action,
            Action::Tasks(_)
                | Action::Hatch(
                    Lever::Open
                        | Lever::Close
                        | Lever::Reset
                        | Lever::SwitchGateway
                        | Lever::Invalidate
                )
        );
        for (role, allowed) in [
            ("viewer", endpoint.method == Method::GET),
            ("operator", endpoint.method == Method::GET || pulls),
            ("admin", true),
        ] {
            let token = format!("at-{role}");
            let answer =
                desk.call(&token, endpoint.method.clone(), &path, Some(body.clone())).await;
            let passed = answer.status != 403 && answer.status != 401;
            assert_eq!(passed, allowed, "{role} {} {path}: {}", endpoint.method, answer.text);
        }
        if change {
            let switch = json!({"enabled": false, "reason": "r"});
            for (role, status) in [("viewer", 403), ("operator", 404), ("admin", 404)] {
                let token = format!("at-{role}");
                let method = endpoint.method.clone();
                let answer = desk.call(&token, method, &path, Some(switch.clone())).await;
                assert_eq!(answer.status, status, "{role} {path}");
            }
        }
    }
}

#[tokio::test]
async fn the_document_is_for_everyone() {
    let desk = Desk::open().await;
    let bare = ask(Method::GET, "/openapi.json").body(Body::empty()).unwrap();
    let document = desk.send(bare).await;
    assert_eq!(
        (document.status.as_u16(), document.header("content-type")),
        (200, "application/json")
    );
    assert_eq!(document.body["openapi"], "3.1.0");
}

#[tokio::test]
async fn a_body_is_bounded_and_must_be_an_object() {
    let desk = Desk::open().await;
    let post = async |body: Vec<u8>| {
        let request = ask(Method::POST, "/apps").header("authorization", "Bearer at-admin");
        desk.send(request.body(Body::from(body)).unwrap()).await
    };
    let large = post(vec![b' '; 1024 * 1024 + 1]).await;
    assert_eq!((large.status.as_u16(), large.refusal().1), (413, "body_too_large"));
    let deep = [b"{\"a\":".repeat(100_000), b"}".repeat(100_000)].concat();
    for body in [&b""[..], b"{", b"[]", b"null", b"\"x\"", b"\xff", b"{} {}", &deep] {
        let refused = post(body.to_vec()).await;
        assert_eq!((refused.status.as_u16(), refused.refusal().1), (400, "invalid_body"));
    }
}

#[tokio::test]
async fn any_content_type_is_tolerated() {
    let desk = Desk::open().await;
    let request = ask(Method::POST, "/apps")
        .header("authorization", "bearer at-admin")
        .header("content-type", "text/plain");
    let created = desk.send(request.body(Body::from(r#"{"code":"a"}"#)).unwrap()).await;
    assert_eq!(created.status, 201);
}
