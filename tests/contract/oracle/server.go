package main

import (
	"context"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// padding is a field that no message has, with so many bytes in it.
func padding(size int) []byte {
	if size == 0 {
		return nil
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, 1000, protowire.BytesType), make([]byte, size))
}

// server answers the methods below; text comes and goes as google.protobuf.StringValue.
func server(socket string) error {
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	server.Register("oracle.Test", map[string]ttrpc.Method{
		// Echo gives back the request's bytes.
		"Echo": func(ctx context.Context, unmarshal func(interface{}) error) (interface{}, error) {
			var message emptypb.Empty
			err := unmarshal(&message)
			return &message, err
		},
		// Sleep waits for so many milliseconds, or for the caller's deadline.
		"Sleep": withText(func(ctx context.Context, text string) (string, error) {
			duration, err := time.ParseDuration(text + "ms")
			if err != nil {
				return "", err
			}
			select {
			case <-time.After(duration):
				return text, nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}),
		// Ignore waits for so many milliseconds, whatever the caller's deadline.
		"Ignore": withText(func(ctx context.Context, text string) (string, error) {
			duration, err := time.ParseDuration(text + "ms")
			time.Sleep(duration)
			return text, err
		}),
		// Fail answers with a status, "CODE message".
		"Fail": withText(func(ctx context.Context, text string) (string, error) {
			number, message, _ := strings.Cut(text, " ")
			code, err := strconv.Atoi(number)
			if err != nil {
				return "", err
			}
			return "", status.Error(codes.Code(code), message)
		}),
		// Big answers with a message of at least so many bytes.
		"Big": withText(func(ctx context.Context, text string) (string, error) {
			size, err := strconv.Atoi(text)
			return strings.Repeat("x", size), err
		}),
		// Deadline tells in milliseconds how much of the caller's time is left, or "none".
		"Deadline": withText(func(ctx context.Context, text string) (string, error) {
			deadline, ok := ctx.Deadline()
			if !ok {
				return "none", nil
			}
			return strconv.FormatInt(time.Until(deadline).Milliseconds(), 10), nil
		}),
		// Leave ends the process before it answers.
		"Leave": withText(func(ctx context.Context, text string) (string, error) {
			os.Exit(0)
			return "", nil
		}),
	})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		server.Close()
	}()
	if err := server.Serve(context.Background(), listener); err != ttrpc.ErrServerClosed {
		return err
	}
	return nil
}

func withText(do func(context.Context, string) (string, error)) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(interface{}) error) (interface{}, error) {
		var request wrapperspb.StringValue
		if err := unmarshal(&request); err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		text, err := do(ctx, request.Value)
		return wrapperspb.String(text), err
	}
}
