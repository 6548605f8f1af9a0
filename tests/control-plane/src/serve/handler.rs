//! From request to response.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Body, JSON};
use super::auth::{self, User};
use super::negotiate::{self, Form};
use super::path::{self, ApiPath, ResourcePath};
use super::query::Parameters;
use super::{review, stream};
use crate::discovery;
use crate::openapi::OpenApi;
use crate::patch::Patch;
use crate::registry::{Resource, Verbs};
use crate::rest::{Api, Part, Target};
use crate::status::ApiError;
use crate::table::{self, Include};

/// Largest body accepted.
const BODY: usize = 3 << 20;

/// The API server behind its connections.
#[derive(Debug)]
pub struct Server {
    pub(super) api: Arc<Api>,
    pub(super) openapi: OpenApi,
    pub(super) address: String,
}

/// A request read whole.
pub(super) struct Call {
    method: Method,
    pub(super) parameters: Parameters,
    pub(super) headers: http::HeaderMap,
    body: Bytes,
    user: Arc<User>,
    shutdown: CancellationToken,
}

impl Call {
    /// The body as a value; YAML is read as JSON.
    fn object(&self) -> Result<Value, ApiError> {
        match negotiate::media_type(&self.headers) {
            "" | JSON => serde_json::from_slice(&self.body).map_err(|error| {
                ApiError::bad_request(format!("the body is not a JSON object: {error}"))
            }),
            "application/yaml" => serde_yaml_ng::from_slice(&self.body).map_err(|error| {
                ApiError::bad_request(format!("the body is not a YAML object: {error}"))
            }),
            other => Err(ApiError::new(
                415,
                "UnsupportedMediaType",
                format!(
                    "the body of the request was in an unknown format ({other}) - accepted media types include: application/json, application/yaml; use a client that sends JSON, e.g. kubectl apply -f or kubectl create -f"
                ),
            )),
        }
    }

    /// The body as a value, or null when there is none.
    fn object_or_null(&self) -> Result<Value, ApiError> {
        if self.body.is_empty() {
            Ok(Value::Null)
        } else {
            self.object()
        }
    }
}

impl Server {
    /// A server of an API that clients reach at `address` (told in discovery).
    pub fn new(api: Arc<Api>, address: &str) -> Self {
        let openapi = OpenApi::new(api.registry());
        Self {
            api,
            openapi,
            address: address.to_owned(),
        }
    }

    /// Answers one request.
    pub async fn handle(
        &self,
        request: Request<Incoming>,
        user: Option<Arc<User>>,
        shutdown: CancellationToken,
    ) -> Response<Body> {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let response = match self.answer(request, user, shutdown).await {
            Ok(response) => response,
            Err(error) => answer::error(&error),
        };
        tracing::debug!(%method, %uri, status = response.status().as_u16(), "request");
        response
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        user: Option<Arc<User>>,
        shutdown: CancellationToken,
    ) -> Result<Response<Body>, ApiError> {
        let path = request.uri().path().to_owned();
        if let Some(response) = self.public(request.method(), &path) {
            return Ok(response);
        }
        auth::authenticated(user.as_deref())?;
        let user = user.ok_or_else(|| ApiError::new(401, "Unauthorized", "Unauthorized"))?;
        auth::authorize(&user, &request.method().as_str().to_lowercase(), &path)?;
        let parameters = Parameters::parse(request.uri())?;
        let (head, body) = request.into_parts();
        let body = read(body).await?;
        let call = Call {
            method: head.method,
            parameters,
            headers: head.headers,
            body,
            user,
            shutdown,
        };
        if let Some(response) = self.document(&call, &path)? {
            return Ok(response);
        }
        match path::parse(&path)? {
            Some(ApiPath {
                group,
                version,
                resource: Some(resource),
            }) => self.resource(&call, &group, &version, resource).await,
            Some(ApiPath {
                group,
                version,
                resource: None,
            }) => {
                let list = discovery::resources(self.api.registry(), &group, &version);
                let list = list.ok_or_else(ApiError::no_such_path)?;
                Ok(answer::json(200, &list))
            }
            None => Err(ApiError::no_such_path()),
        }
    }

    async fn resource(
        &self,
        call: &Call,
        group: &str,
        version: &str,
        path: ResourcePath,
    ) -> Result<Response<Body>, ApiError> {
        let resource = self.api.registry().find(group, version, &path.plural);
        let resource = resource.ok_or_else(ApiError::no_such_path)?;
        if path.namespace.is_some() && !resource.namespaced {
            return Err(ApiError::no_such_path());
        }
        if resource.verbs == Verbs::Create {
            if call.method != Method::POST {
                return Err(ApiError::method_not_allowed());
            }
            let review = review::answer(resource.kind, &call.user, call.object()?);
            return Ok(answer::json(201, &review));
        }
        let namespace = path.namespace.as_deref();
        let Some(name) = &path.name else {
            return self.collection(call, resource, namespace).await;
        };
        if resource.namespaced && namespace.is_none() {
            return Err(ApiError::method_not_allowed());
        }
        let target = Target::new(resource, namespace.unwrap_or_default(), name);
        match path.subresource.as_deref() {
            None => self.object(call, &target, Part::Main).await,
            Some("status") if resource.status => self.object(call, &target, Part::Status).await,
            Some(name) => match resource.subresource(name) {
                Some(_) => self.subresource(call, &target, name).await,
                None => Err(ApiError::no_such_path()),
            },
        }
    }

    async fn collection(
        &self,
        call: &Call,
        resource: &Arc<Resource>,
        namespace: Option<&str>,
    ) -> Result<Response<Body>, ApiError> {
        let parameters = &call.parameters;
        let creatable = namespace.is_some() || !resource.namespaced;
        match call.method {
            Method::GET if parameters.flag("watch")? => {
                let form = negotiate::form(&call.headers)?;
                let shutdown = call.shutdown.clone();
                stream::watch(&self.api, resource, namespace, parameters, form, shutdown)
            }
            Method::GET => self.list(call, resource, namespace),
            Method::POST if creatable => {
                let options = parameters.write_options()?;
                let target = Target::new(resource, namespace.unwrap_or_default(), "");
                let written = self.api.create(&target, call.object()?, options).await?;
                let response = shaped(call, 201, written.body)?;
                Ok(answer::warn(response, &written.warnings))
            }
            Method::DELETE if creatable => {
                let options = parameters.delete_options(&call.object_or_null()?)?;
                let list = parameters.list_options(resource)?;
                let target = Target::new(resource, namespace.unwrap_or_default(), "");
                let body = self.api.delete_collection(&target, &list, &options).await?;
                Ok(answer::bytes(200, JSON, body))
            }
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    fn list(
        &self,
        call: &Call,
        resource: &Arc<Resource>,
        namespace: Option<&str>,
    ) -> Result<Response<Body>, ApiError> {
        let form = negotiate::form(&call.headers)?;
        let options = call.parameters.list_options(resource)?;
        let page = self.api.list(resource, namespace, &options)?;
        match form {
            Form::Json => Ok(answer::bytes(200, JSON, page.to_json(resource)?)),
            Form::Table => {
                let include = Include::parse(call.parameters.get("includeObject"))?;
                let metadata = page.metadata();
                let table = table::table(resource, &page.objects, &metadata, include, true)?;
                Ok(answer::json(200, &table))
            }
            Form::Partial => {
                let items: Vec<Value> = page
                    .objects
                    .iter()
                    .map(|object| Ok(table::partial(&Api::value(resource, object)?)))
                    .collect::<Result<_, ApiError>>()?;
                Ok(answer::json(
                    200,
                    &serde_json::json!({
                        "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                        "metadata": page.metadata(), "items": items,
                    }),
                ))
            }
        }
    }

    async fn object(
        &self,
        call: &Call,
        target: &Target,
        part: Part,
    ) -> Result<Response<Body>, ApiError> {
        let resource = &target.resource;
        let parameters = &call.parameters;
        let written = match call.method {
            Method::GET => {
                let object = self.api.get(target)?;
                if negotiate::form(&call.headers)? == Form::Table {
                    let include = Include::parse(parameters.get("includeObject"))?;
                    let metadata =
                        serde_json::json!({"resourceVersion": object.revision.to_string()});
                    let table = table::table(resource, &[object], &metadata, include, true)?;
                    return Ok(answer::json(200, &table));
                }
                return shaped(call, 200, Api::serve(resource, &object)?);
            }
            Method::PUT => {
                let options = parameters.write_options()?;
                self.api
                    .update(target, part, call.object()?, options)
                    .await?
            }
            Method::PATCH => {
                let patch = Patch::parse(negotiate::media_type(&call.headers), &call.body)?;
                self.api
                    .patch(target, part, &patch, parameters.write_options()?)
                    .await?
            }
            Method::DELETE if part == Part::Main => {
                let options = parameters.delete_options(&call.object_or_null()?)?;
                let deleted = self.api.delete(target, &options).await?;
                return Ok(answer::bytes(200, JSON, deleted.body));
            }
            _ => return Err(ApiError::method_not_allowed()),
        };
        let response = shaped(call, 200, written.body)?;
        Ok(answer::warn(response, &written.warnings))
    }

    async fn subresource(
        &self,
        call: &Call,
        target: &Target,
        name: &str,
    ) -> Result<Response<Body>, ApiError> {
        match (name, &call.method) {
            ("binding", &Method::POST) => {
                let written = self.api.bind(target, &call.object()?).await?;
                Ok(answer::bytes(201, JSON, written.body))
            }
            ("eviction", &Method::POST) => {
                let eviction = call.object()?;
                let options = eviction.get("deleteOptions").cloned().unwrap_or_default();
                let options = call.parameters.delete_options(&options)?;
                let deleted = self.api.evict(target, &options).await?;
                Ok(answer::bytes(201, JSON, deleted.body))
            }
            ("finalize", &Method::PUT) => {
                let body = self.api.finalize(target, call.object()?).await?;
                Ok(answer::bytes(200, JSON, body))
            }
            ("scale", &Method::GET) => Ok(answer::json(200, &self.api.scale(target)?)),
            ("scale", &Method::PUT | &Method::PATCH) => {
                let change = match call.method {
                    Method::PUT => Patch::Replace(call.object()?),
                    _ => Patch::parse(negotiate::media_type(&call.headers), &call.body)?,
                };
                let options = call.parameters.write_options()?;
                let written = self.api.set_scale(target, &change, options).await?;
                Ok(answer::bytes(200, JSON, written.body))
            }
            _ => Err(ApiError::method_not_allowed()),
        }
    }
}

/// Reads a body of limited size.
async fn read(body: Incoming) -> Result<Bytes, ApiError> {
    let body = Limited::new(body, BODY).collect().await.map_err(|error| {
        let limit = error
            .downcast_ref::<http_body_util::LengthLimitError>()
            .is_some();
        let (code, reason) = if limit {
            (413, "RequestEntityTooLarge")
        } else {
            (400, "BadRequest")
        };
        let message = format!("the body was not read: {error}; at most {BODY} bytes are taken");
        ApiError::new(code, reason, message)
    })?;
    Ok(body.to_bytes())
}

/// An object in the form asked for: whole or metadata only.
fn shaped(call: &Call, code: u16, body: Bytes) -> Result<Response<Body>, ApiError> {
    let form = negotiate::form(&call.headers)?;
    if form != Form::Partial {
        return Ok(answer::bytes(code, JSON, body));
    }
    let value: Value = serde_json::from_slice(&body).map_err(ApiError::internal)?;
    Ok(answer::json(code, &table::partial(&value)))
}
