//go:build tools

// Package gatewayapi pins the Gateway API whose CRDs the test cluster installs.
package gatewayapi

import _ "sigs.k8s.io/gateway-api/pkg/consts"
