//! What is special about aliases: names with slashes and capitals, routes that lead somewhere.

use super::*;

fn alias(code: &str) -> Value {
    json!({"code": code, "kind": "chat", "routes": [{"channel": "up", "model": "m"}]})
}

#[tokio::test]
async fn a_name_with_slashes_is_found_plain_and_escaped() {
    let desk = Desk::furnished().await;
    let created = desk.post("/aliases", alias("meta-llama/Llama-3")).await;
    assert_eq!(created.header("location"), "/aliases/meta-llama/Llama-3");
    for path in ["/aliases/meta-llama/Llama-3", "/aliases/meta-llama%2FLlama-3"] {
        assert_eq!(desk.row(path).await["code"], "meta-llama/Llama-3");
        let versions = desk.row(&format!("{path}/versions")).await;
        assert!(versions["items"][0]["code"] == "meta-llama/Llama-3");
        assert_eq!(desk.patch(path, json!({"enabled": false})).await.status, 200);
    }
    let change = json!({"retry": {"max_attempts": 5}, "version_no": 1});
    assert_eq!(desk.patch("/aliases/meta-llama/Llama-3", change).await.body["version_no"], 2);
    let path = "/aliases/meta-llama%2FLlama-3/versions/1/restore";
    let restored = desk.post(path, json!({"version_no": 2})).await;
    assert_eq!((restored.status.as_u16(), &restored.body["version_no"]), (200, &json!(3)));
    assert_eq!(desk.delete("/aliases/meta-llama/Llama-3").await.status, 204);
    assert_eq!(desk.get("/aliases/meta-llama/Llama-3").await.status, 404);
}

#[tokio::test]
async fn paths_that_fit_nothing_say_so() {
    let desk = Desk::furnished().await;
    assert_eq!(desk.post("/aliases/gpt-4o", json!({})).await.refusal().1, "method_not_allowed");
    let put = desk.call("at-admin", Method::PUT, "/aliases/gpt-4o", None).await;
    assert_eq!(put.refusal().1, "method_not_allowed");
    assert_eq!(desk.get("/aliases/gpt-4o/versions/1/restore").await.status, 404);
    assert_eq!(desk.get("/nothing").await.refusal().1, "not_found");
}

#[tokio::test]
async fn it_works_below_its_base_path() {
    let desk = Desk::furnished().await;
    let nested = Router::new().nest("/api/admin/v1", desk.router.clone());
    let ask = |method: Method, path: &str, body: Value| {
        let request =
            ask(method, &format!("/api/admin/v1{path}")).header("authorization", "Bearer at-admin");
        nested.clone().oneshot(request.body(Body::from(body.to_string())).unwrap())
    };
    let created = ask(Method::POST, "/aliases", alias("a/B")).await.unwrap();
    assert_eq!(created.status(), 201);
    assert_eq!(created.headers()["location"], "/api/admin/v1/aliases/a/B");
    for (path, status) in
        [("/aliases/a/B", 200), ("/apps/acme", 200), ("/nothing", 404), ("/openapi.json", 200)]
    {
        let read = ask(Method::GET, path, Value::Null).await.unwrap();
        assert_eq!(read.status(), status, "{path}");
    }
    let anonymous = Request::get("/api/admin/v1/nothing").body(Body::empty()).unwrap();
    let anonymous = nested.clone().oneshot(anonymous).await.unwrap();
    assert_eq!(anonymous.status(), 401);
    assert_eq!(anonymous.headers()["content-type"], "application/problem+json");
}
