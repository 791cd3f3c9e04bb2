{
  "targets": [
    {
      "target_name": "mixpl",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake",
          "inputs": ["CMakeLists.txt"],
          "outputs": ["build/Release/mixpl.node"],
          "action": ["bash", "scripts/build-native.sh"]
        }
      ]
    }
  ]
}
