# lastevent in an image of its own, which holds nothing else:
#   docker build -t lastevent .
#   docker run -p 8080:8080 -v lastevent:/data -e LASTEVENT_ANONYMOUS=publish,subscribe lastevent
# The file is /data/lastevent.db; flags of serve go behind the image's name, or into
# variables (-e LASTEVENT_TIME_EVERY=0).
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY store store
COPY stream stream
COPY web web
ARG VERSION
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.release=$VERSION" -o /lastevent ./cmd/lastevent
RUN mkdir /data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /lastevent /lastevent
COPY --from=build --chown=65532:65532 /data /data
USER 65532:65532
ENV LASTEVENT_LISTEN=0.0.0.0:8080 LASTEVENT_DB=/data/lastevent.db
EXPOSE 8080
VOLUME /data
HEALTHCHECK --interval=30s --timeout=10s --start-period=10s CMD ["/lastevent", "healthcheck"]
ENTRYPOINT ["/lastevent"]
