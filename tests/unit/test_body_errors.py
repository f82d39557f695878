"""Bodies with status 200: failures, and pages that look like failures.

The failures are quoted from the public documentation of the APIs.
"""

import json
from typing import Any

import pytest

from tests.support.reading import People, read, read_error
from tests.support.server import Answer, Server
from wholeday.errors import ConfigError
from wholeday.schema.paths import find

FAILURES: list[tuple[str, str, Any]] = [
    ("Slack", "members", {"ok": False, "error": "invalid_auth"}),
    ("Telegram", "result", {"ok": False, "error_code": 429, "description": "Too Many Requests: retry after 5"}),
    ("GraphQL", "data.users", {"data": {"users": [{"id": 1}]}, "errors": [{"message": "Cannot query field"}]}),
    ("Shopify", "customers", {"errors": "[API] Invalid API key or access token"}),
    ("Shopify fields", "customers", {"errors": {"limit": ["must be at most 250"]}}),
    ("Google", "items", {"error": {"code": 403, "message": "Quota exceeded", "status": "RESOURCE_EXHAUSTED"}}),
    ("Google Maps", "results", {"results": [], "status": "REQUEST_DENIED"}),
    ("Google Maps limit", "results", {"results": [], "status": "OVER_QUERY_LIMIT"}),
    ("Google Maps empty", "results", {"results": [], "status": "ZERO_RESULTS"}),
    ("Stripe", "data", {"error": {"type": "invalid_request_error", "message": "No such customer"}}),
    ("Facebook", "data", {"error": {"message": "(#200) Requires permission", "type": "OAuthException", "code": 200}}),
    ("X", "data", {"title": "Unauthorized", "type": "about:blank", "status": 401, "detail": "Unauthorized"}),
    ("X 1.1", "users", {"errors": [{"code": 88, "message": "Rate limit exceeded"}]}),
    ("Zendesk", "users", {"error": "InvalidEndpoint", "description": "Not found"}),
    ("Elasticsearch", "hits.hits", {"took": 30000, "timed_out": True, "hits": {"total": {"value": 0}, "hits": []}}),
    ("Elasticsearch shards", "hits.hits", {"timed_out": False, "_shards": {"failed": 2}, "hits": {"hits": []}}),
    ("Salesforce", "auto", [{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}]),
    ("Salesforce fields", "auto", [{"message": "No such column", "errorCode": "INVALID_FIELD", "fields": ["Nme"]}]),
    ("Apigee", "users", {"fault": {"faultstring": "Access denied", "detail": {"errorcode": "steps.IPDeniedAccess"}}}),
    ("AWS", "Users", {"__type": "ThrottlingException", "message": "Rate exceeded"}),
    ("AWS coral", "Users", {"__type": "com.amazon.coral.service#UnrecognizedClientException", "Users": None}),
    ("Mailchimp", "members", {"type": "https://mailchimp.com/x/", "title": "API Key Invalid", "status": 401}),
    ("Yelp", "businesses", {"error": {"code": "ACCESS_LIMIT_REACHED", "description": "You've reached the limit"}}),
    ("WeChat", "data.openid", {"errcode": 40001, "errmsg": "invalid credential"}),
    ("DingTalk", "userlist", {"errcode": 90018, "errmsg": "您的服务器调用钉钉开放平台", "userlist": []}),
    ("HubSpot", "results", {"status": "error", "message": "You have reached your daily limit.", "results": None}),
    ("Jira", "issues", {"errorMessages": ["The value 'x' does not exist"], "warningMessages": [], "issues": []}),
    ("CoinMarketCap", "data", {"status": {"error_code": 1008, "error_message": "Limit"}, "data": []}),
    ("Etherscan", "result", {"status": "0", "message": "NOTOK", "result": "Max rate limit reached"}),
    ("Flickr", "photos.photo", {"stat": "fail", "code": 100, "message": "Invalid API Key (Key has invalid format)"}),
    ("Okta", "users", {"errorCode": "E0000047", "errorSummary": "API call exceeded rate limit", "errorCauses": []}),
    ("QuickBooks", "QueryResponse.Customer", {"Fault": {"Error": [{"code": "3200"}], "type": "AUTHENTICATION"}}),
    ("Huawei", "users", {"error_msg": "The token is missing.", "error_code": "APIG.1000"}),
    ("Huawei drive", "data", {"code": 13000201, "msg": "inner server invoke failure", "data": []}),
    ("TikTok", "data", {"code": "access_token_invalid", "message": "Access token is invalid", "log_id": "2022"}),
    ("UbiBot", "channels", {"result": "error", "errorCode": "over_limit", "desp": "limit", "channels": []}),
    ("Alibaba", "Users", {"RequestId": "540C", "Code": "MissingParameter.CommandId", "Message": "Missing Param"}),
    ("Kubernetes", "items", {"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403}),
    ("Zoom", "users", {"code": 124, "message": "Access token is expired.", "users": []}),
    ("DigitalOcean", "droplets", {"id": "too_many_requests", "message": "API Rate limit exceeded."}),
    ("TMDB", "results", {"success": False, "status_code": 7, "status_message": "Invalid API key", "results": []}),
    ("TMDB short", "results", {"status_code": 7, "status_message": "Invalid API key: You must be granted a key"}),
    ("OpenWeather", "list", {"cod": 401, "message": "Invalid API key."}),
    ("Notion", "results", {"object": "error", "status": 429, "code": "rate_limited", "message": "Slow down"}),
    ("Anthropic", "data", {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    ("Intercom", "data", {"type": "error.list", "request_id": "x", "data": None}),
    ("SCIM", "Resources", {"schemas": ["urn:error"], "status": "429", "detail": "Slow down", "Resources": []}),
    ("Feishu", "data.items", {"code": 99991663, "msg": "token attribute invalid", "data": {"items": None}}),
    ("Baidu", "results", {"status": 240, "message": "APP 服务被禁用", "results": []}),
    ("Amap", "pois", {"status": "0", "info": "INVALID_USER_KEY", "infocode": "10001", "pois": []}),
    ("BigQuery", "rows", {"kind": "bigquery#queryResponse", "jobComplete": False, "rows": []}),
    ("GitHub search", "items", {"total_count": 0, "incomplete_results": True, "items": []}),
    ("Alpha Vantage", "data", {"Information": "We have detected your API key and our standard API rate limit is 25."}),
    ("Alpha Vantage note", "data", {"Note": "Our standard API call frequency is 5 calls per minute."}),
    ("Last.fm", "users", {"error": 10, "message": "Invalid API Key"}),
    ("WordPress", "users", {"code": "rest_forbidden", "message": "Not allowed", "data": {"status": 401}}),
    (".NET", "value", {"Message": "An error has occurred.", "ExceptionMessage": "Timeout", "value": []}),
    ("Azure", "value", {"error": {"code": "TooManyRequests", "message": "Retry"}, "value": []}),
    ("JSend", "data", {"status": "fail", "data": None}),
    ("meta", "data", {"meta": {"error": "upstream"}, "data": []}),
    ("meta status", "data", {"meta": {"status": 503, "msg": "Service Unavailable"}, "data": []}),
    ("capitals", "data", {"Success": False, "data": []}),
    ("camel", "data", {"isSuccess": False, "data": []}),
    ("snake", "data", {"is_success": "false", "data": []}),
    ("statusCode", "data", {"statusCode": 429, "message": "limit", "data": []}),
    ("negative", "data", {"code": -1, "data": None}),
    ("odd code", "data", {"code": 50001, "msg": "internal error", "data": []}),
    ("status false", "data", {"status": False, "data": []}),
    ("null", "data", {"message": "Too many requests", "data": None}),
    ("message alone", "data", {"message": "Something else"}),
    ("RFC 9457", "data", {"type": "https://example.com/out-of-credit", "detail": "Your balance is 30."}),
]

HARMLESS: list[tuple[str, Any]] = [
    ("items", {"status": "active", "items": [{"id": 1}]}),
    ("items", {"status": "active", "items": []}),
    ("items", {"status": "failed", "items": [{"id": 1}]}),
    ("items", {"status": "archived", "items": []}),
    ("items", {"status": "expired", "items": None}),
    ("items", {"status": "suspended", "items": []}),
    ("items", {"status": "pending", "items": []}),
    ("data", {"status": "ok", "data": []}),
    ("data", {"status": "success", "data": None}),
    ("data", {"status": "OK", "results": 0, "data": []}),
    ("data", {"status": 200, "data": []}),
    ("data", {"status": 0, "message": "ok", "data": []}),
    ("data", {"status": True, "message": "No users found", "data": []}),
    ("result", {"status": "0", "message": "No transactions found", "result": []}),
    ("data", {"code": 0, "message": "", "data": []}),
    ("data", {"code": 0, "msg": "success", "data": [{"id": 1}]}),
    ("data", {"code": 200, "data": []}),
    ("data", {"code": "200", "msg": "查询成功", "data": []}),
    ("data", {"code": 20000, "data": []}),
    ("data", {"code": 1, "msg": "success", "data": []}),
    ("data", {"code": "00000", "data": []}),
    ("data", {"code": "SUCCESS", "message": "done", "data": []}),
    ("cities", {"code": "DE", "name": "Germany", "cities": []}),
    ("cities", {"code": 49, "name": "Germany", "cities": []}),
    ("users", {"code": 10115, "city": "Berlin", "users": []}),
    ("users", {"id": 7, "name": "Atlanta", "code": 404, "users": []}),
    ("results", {"id": 7, "name": "Nightly run", "status": "failed", "results": []}),
    ("data", {"statusCode": 200, "data": []}),
    ("data", {"errors": [], "data": []}),
    ("data", {"errors": {}, "error": {}, "data": [{"id": 1}]}),
    ("data", {"error": None, "data": []}),
    ("data", {"error": False, "message": "", "data": []}),
    ("data", {"error": "", "errors": 0, "data": []}),
    ("data", {"error": "none", "data": []}),
    ("data", {"error": {"code": "ok", "message": "", "log_id": "2022"}, "data": [{"id": 1}]}),
    ("data", {"error": {"code": 0, "message": "success"}, "data": []}),
    ("userlist", {"errcode": 0, "errmsg": "ok", "userlist": []}),
    ("data", {"error_code": 0, "error_msg": "", "data": []}),
    ("data", {"errorCode": None, "errorMessage": None, "data": []}),
    ("data", {"errorCode": "0", "errorMessage": "No error", "data": []}),
    ("data", {"status": {"error_code": 0, "error_message": None, "credit_count": 1}, "data": []}),
    ("data", {"success": True, "message": "0 users, no errors", "data": []}),
    ("data", {"isSuccess": True, "hasErrors": False, "data": []}),
    ("hits.hits", {"took": 2, "timed_out": False, "_shards": {"total": 5, "failed": 0}, "hits": {"hits": []}}),
    ("data", {"meta": {"error": None, "status": 200}, "data": []}),
    ("items", {"filter": {"status": "error", "code": 500}, "items": []}),
    ("items", {"counts": {"error": 3, "failed": 2}, "items": []}),
    ("items", {"summary": {"errors": 7, "success": 0}, "items": []}),
    ("items", {"_links": {"error": "/errors"}, "items": []}),
    ("items", {"order": {"id": 5, "status": "failed", "code": 500}, "items": []}),
    ("items", {"type": "error", "items": []}),
    ("items", {"kind": "storage#objects", "items": []}),
    ("items", {"object": "list", "has_more": False, "items": []}),
    ("items", {"kind": "admin#directory#users", "etag": "x"}),
    ("items", {"message": "No users found", "items": []}),
    ("items", {"note": "Times are in UTC", "items": []}),
    ("items", {"total_count": 0, "incomplete_results": False, "items": []}),
    ("items", {"message": "No users found"}),
    ("items", {"timeout": 30, "failed": 0, "items": []}),
    ("items", {"result": "empty", "items": []}),
    ("items", {"state": "CA", "items": []}),
    ("items", {"info": {"count": 0, "pages": 0}, "items": []}),
    ("items", {"title": "Errors of the week", "description": "Requests that failed", "items": []}),
    ("Resources", {"totalResults": 0, "schemas": ["urn:ListResponse"], "Resources": []}),
    ("auto", [{"id": 1, "errorCode": "E1", "message": "a record of an error log"}]),
    ("auto", [{"code": "welcome", "message": "Welcome!"}]),
    ("auto", [{"id": 1, "error": "yes"}, {"id": 2, "error": None}]),
    ("auto", []),
    ("items", {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("selector", "body"), [case[1:] for case in FAILURES], ids=[case[0] for case in FAILURES])
def test_body_that_reports_a_failure_fails(server: Server, selector: str, body: Any) -> None:
    """With `end_when = missing_list` and `data_selector = auto` too."""
    url = server.on("/users", Answer(body))
    assert "the page reports a failure: '" in read_error(url, data_selector=selector, end_when="missing_list")
    read_error(url)
    assert len(server.requests) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("selector", "body"), HARMLESS, ids=[json.dumps(body)[:70] for _, body in HARMLESS])
def test_similar_body_is_a_page(server: Server, selector: str, body: Any) -> None:
    """Every record arrives, and an empty page has no records."""
    url = server.on("/users", Answer(body))
    records = read(url, data_selector=selector, paginator="single", end_when="missing_list")
    assert records == ((body if selector == "auto" else find(body, selector)) or [])


@pytest.mark.parametrize(
    ("body", "ok_when"),
    [
        ({"data": [], "status": "ZERO_RESULTS"}, "status=ZERO_RESULTS"),
        ({"data": [], "status": "ZERO_RESULTS", "code": 50001}, "code=50001, status = ZERO_RESULTS"),
        ({"data": [], "success": False}, "success=false"),
        ({"data": [], "meta": {"error": "partial"}}, "meta.error=partial"),
        ({"data": [{"id": 1}], "error": {"code": "W1"}}, "error.code=W1"),
        ({"data": [{"id": 1}], "errors": ["deprecated"]}, "errors=*"),
    ],
)
def test_ok_when_excuses_a_value(server: Server, body: dict[str, Any], ok_when: str) -> None:
    """It excuses exactly that value of exactly that field."""
    url = server.on("/users", Answer(body))
    assert len(read(url, data_selector="data", ok_when=ok_when)) == len(body["data"])
    assert "set ok_when = " in read_error(url, data_selector="data")
    other = ok_when.replace("=", "s=", 1)
    assert "reports a failure" in read_error(url, data_selector="data", ok_when=other)
    if not ok_when.endswith("*"):
        assert "reports a failure" in read_error(url, data_selector="data", ok_when=ok_when + "X")


def test_ok_when_of_the_line_is_accepted(server: Server) -> None:
    """The suggested value is the fix."""
    url = server.on("/users", Answer({"data": [], "statusCode": 429}))
    proposed = read_error(url, data_selector="data").partition("set ok_when = ")[2].partition(" if it is")[0]
    assert read(url, data_selector="data", ok_when=proposed) == []


@pytest.mark.parametrize(
    ("body", "error_path", "failed"),
    [
        ({"users": [{"id": 1}], "state": "broken"}, "state=broken", True),
        ({"users": [{"id": 1}], "state": "fine"}, "state=broken", False),
        ({"users": [{"id": 1}], "meta": {"code": 7}}, "meta.code = 7", True),
        ({"users": [{"id": 1}], "meta": {"code": 8}}, "meta.code=7", False),
        ({"users": [{"id": 1}], "state": "broken"}, "!state=fine", True),
        ({"users": [{"id": 1}]}, "!state=fine", False),
        ({"users": [{"id": 1}], "partial": True}, "partial=true", True),
    ],
)
def test_error_path_takes_a_value(server: Server, body: Any, error_path: str, failed: bool) -> None:
    """`field=value` makes that value a failure, even with records."""
    url = server.on("/users", Answer(body))
    if failed:
        assert "reports a failure" in read_error(url, error_path=error_path)
    else:
        assert read(url, error_path=error_path) == [{"id": 1}]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("error_path", "=error", "write field or field=value"),
        ("error_path", "status='error'", "without quotes"),
        ("ok_when", "status", "write field=value"),
        ("ok_when", "status=ok, =x", "write field=value"),
        ("ok_when", 'status="ok"', "without quotes"),
        ("end_when", "405", "unknown word '405': use 204, 404, 400, missing_list, same_cursor, repeated_page"),
        ("end_when", "404; 400", "unknown word '404; 400'"),
    ],
)
def test_unusable_rule_is_refused(key: str, value: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        People(url="http://127.0.0.1/", **{key: value})
    assert f"[people] {key} = {value}" in str(caught.value)


def test_problem_report_with_status_200_fails(server: Server) -> None:
    """Whatever its body says (RFC 9457)."""
    answer = Answer({"users": []}, headers={"Content-Type": "application/problem+json; charset=utf-8"})
    assert "problem report" in read_error(server.on("/users", answer))
