import { createTypeScriptImportResolver } from "eslint-import-resolver-typescript";
import importX from "eslint-plugin-import-x";
import tseslint from "typescript-eslint";

// A floor imports only from the floors below it (docs/architecture.md). The order here is the order of the house.
const floors = ["erlang", "buffer", "capture", "transform", "vm", "phoenix", ["export", "cli"]].map((f) =>
  [f].flat(),
);

const floorZones = floors.flatMap((names, level) =>
  names.map((name) => ({
    target: `./src/${name}`,
    from: floors
      .slice(level + 1)
      .flat()
      .concat(names.filter((n) => n !== name))
      .map((n) => `./src/${n}`)
      .concat("./src/index.ts"),
    message: `src/${name} may import only from lower floors.`,
  })),
);

export default tseslint.config(
  { ignores: ["dist/", "docs/api/", "coverage/", "node_modules/", ".cache/", "**/*.generated.ts"] },
  ...tseslint.configs.recommended,
  {
    files: ["**/*.ts"],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      "@typescript-eslint/no-floating-promises": "error",
      "@typescript-eslint/no-misused-promises": "error",
      "@typescript-eslint/switch-exhaustiveness-check": [
        "error",
        { considerDefaultExhaustiveForUnions: true },
      ],
      "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
      "@typescript-eslint/consistent-type-imports": "error",
    },
  },
  {
    files: ["src/**/*.ts"],
    plugins: { "import-x": importX },
    settings: { "import-x/resolver-next": [createTypeScriptImportResolver()] },
    rules: {
      "import-x/no-restricted-paths": ["error", { zones: floorZones }],
      "import-x/no-cycle": "error",
      "no-console": "error",
    },
  },
);
